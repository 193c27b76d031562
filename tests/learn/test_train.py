"""Training: exact log-probabilities, exact resumption, and adapters that learn."""

import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from training import MODEL, exported, metrics, recipe, write_data

from malt_jax import export
from malt_jax.learn import loop
from malt_jax.models import lora
from malt_jax.runtime import mesh
from malt_jax.stages import train
from malt_jax.workdir import checkpoints


def test_sft_then_dpo_learn_and_export(tmp_path):
    """SFT's loss falls; DPO starts from the SFT policy, so its first margin is zero, and then
    grows."""
    write_data(tmp_path)
    train.run(tmp_path, recipe(epochs=12, checkpoint_every=100), MODEL, mesh.make())
    sft, dpo = metrics(tmp_path, "sft"), metrics(tmp_path, "dpo")
    assert [row["step"] for row in sft] == list(range(1, 37))
    assert sft[-1]["loss"] < 0.6 * sft[0]["loss"]
    assert abs(dpo[0]["margin"]) < 1e-4
    assert dpo[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert dpo[-1]["margin"] > 0.1
    assert dpo[-1]["accuracy"] == 1.0
    assert (tmp_path / "export" / "refiner" / "adapter_config.json").exists()
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["refiner", "sft"]


HELD_OUT = {"held_out": 0.3, "eval_every": 2, "checkpoint_every": 3, "epochs": 3}  # 6 steps
TIMES = ("seconds", "tokens_per_second", "flops_per_second", "peak_share")


def untimed(workdir: Path, phase: str) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMES} for r in metrics(workdir, phase)]


def best(workdir: Path, phase: str) -> list[str]:
    return sorted(p.name for p in (workdir / "checkpoints" / "refiner" / phase / "best").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    write_data(workdir)
    train.run(workdir, recipe(**HELD_OUT), MODEL, mesh.make())
    return workdir


def test_a_resumed_run_is_bit_identical(whole, tmp_path, monkeypatch):
    """Killed before the first checkpoint, in the middle of an epoch of SFT and twice in DPO, after
    an evaluation that no checkpoint followed: metrics, held-out losses, which adapter was best, and
    the export."""
    write_data(tmp_path)

    def kill_after(steps: int):
        real, count = loop.step_figures, iter(range(1, 10**6))

        def figures(*args):
            row = real(*args)

            def dying(*args):
                if next(count) > steps:
                    raise KeyboardInterrupt
                return row(*args)

            return dying

        return figures

    for steps in (1, 4, 7, 0):
        with monkeypatch.context() as patched:
            patched.setattr(loop, "step_figures", kill_after(steps))
            with pytest.raises(KeyboardInterrupt):
                train.run(tmp_path, recipe(**HELD_OUT), MODEL, mesh.make())
    assert not (tmp_path / "export" / "refiner").exists()
    train.run(tmp_path, recipe(**HELD_OUT), MODEL, mesh.make())
    assert exported(whole) == exported(tmp_path)
    assert exported(whole, "sft") == exported(tmp_path, "sft") != exported(whole)
    for phase in ("sft", "dpo"):
        assert untimed(whole, phase) == untimed(tmp_path, phase)
        assert best(whole, phase) == best(tmp_path, phase)
        evaluations = [row for row in untimed(whole, phase) if row.get("eval")]
        assert [row["step"] for row in evaluations] == [0, 2, 4, 6]
        chosen_from = evaluations[phase == "sft" :]  # SFT does not choose its start
        assert str(min(chosen_from, key=lambda row: row["loss"])["step"]) in best(whole, phase)


def test_slow_steps_are_saved_before_their_number_is_up(whole, tmp_path, monkeypatch):
    """A SIGTERM within a step of more than ten seconds, the 43rd of 100 between checkpoints, cost
    all 42 before it."""
    write_data(tmp_path)
    recipes = recipe(**HELD_OUT | {"checkpoint_every": 100})
    real = loop.step_figures

    def figures(*args):
        row = real(*args)

        def dying(step, *args):
            if step == 4:
                raise KeyboardInterrupt
            return row(step, *args)

        return dying

    monkeypatch.setattr(loop, "step_figures", figures)
    folder = tmp_path / "checkpoints" / "refiner" / "sft"
    for seconds, wanted in ((180.0, set()), (0.0, {"2", "3"})):
        monkeypatch.setattr(loop, "_OVERDUE_SECONDS", seconds)
        with pytest.raises(KeyboardInterrupt):
            train.run(tmp_path, recipes, MODEL, mesh.make())
        assert {path.name for path in folder.glob("[0-9]*")} == wanted
    monkeypatch.setattr(loop, "step_figures", real)
    train.run(tmp_path, recipes, MODEL, mesh.make())
    assert exported(whole) == exported(tmp_path)
    assert untimed(whole, "sft") == untimed(tmp_path, "sft")


def test_resuming_without_the_optimiser_state_would_show(whole, tmp_path, monkeypatch):
    """The control of the test above: a fresh optimiser on resume changes the export."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    restore = checkpoints.restore

    def forgetful(saved, like):
        step, state = restore(saved, like)
        return step - 2, state | {"opt_state": like["opt_state"]}

    (tmp_path / "export" / "refiner").rename(tmp_path / "old")
    monkeypatch.setattr(checkpoints, "restore", forgetful)
    monkeypatch.setattr(checkpoints, "save", lambda *args: None)
    monkeypatch.setattr(loop, "_best", lambda phase, last: last)
    train.run(tmp_path, recipe(**HELD_OUT), MODEL, mesh.make())
    assert exported(whole) != exported(tmp_path)


def test_accumulation_equals_a_larger_batch(tmp_path):
    """1 x 8 equals 4 x 2 though the rows have different lengths: the mean is over the step's
    tokens."""
    results = []
    for split in ({"batch": 8, "accumulate": 1}, {"batch": 2, "accumulate": 4}):
        directory = tmp_path / str(split["batch"])
        write_data(directory, n=16)
        settings = recipe(("dpo",), **split, learning_rate=1e-3)  # of both losses the longer one
        train.run(directory, settings, MODEL, mesh.make())
        results.append(directory)
    from safetensors.numpy import load_file

    first, second = (
        load_file(d / "export" / "refiner" / "adapter_model.safetensors") for d in results
    )
    for name, tensor in first.items():
        # A tenth of one update at a rate of 1e-2: where a gradient is all but 0, Adam makes as much
        # of its last bit. `test_steps` holds the gradients themselves to 1e-6.
        np.testing.assert_allclose(tensor, second[name], atol=1e-3)


def test_checkpoints_hold_no_base_weights(whole):
    """Adapter and two moments, and nothing else; of the best, the adapter alone."""
    folder = whole / "checkpoints" / "refiner" / "dpo"
    adapter = jax.tree.leaves(lora.init(MODEL.config, jax.random.key(0), rank=4, alpha=8.0))
    for path, copies in ((folder / "6", 3), (folder / "best" / best(whole, "dpo")[-1], 1)):
        with ocp.StandardCheckpointer() as orbax:
            stored = jax.tree.leaves(orbax.restore(path))
        arrays = sorted(leaf.shape for leaf in stored if leaf.shape)
        assert arrays == sorted(leaf.shape for leaf in copies * adapter)


def test_a_half_written_export_does_not_count(tmp_path, monkeypatch):
    """Killed between the two files of an export, a run took the role for finished."""
    write_data(tmp_path)
    save = export.save_adapter

    def killed(*args, **kwargs):
        save(*args, **kwargs)
        (args[2] / "adapter_model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "save_adapter", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(tmp_path, recipe(**HELD_OUT), MODEL, mesh.make())
    assert not (tmp_path / "export" / "refiner").exists()
    train.run(tmp_path, recipe(**HELD_OUT), MODEL, mesh.make())
    assert len(exported(tmp_path)) > 0


def test_missing_data_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"refiner/sft.parquet: not there; run --stage=datasets"):
        train.run(tmp_path, recipe(), MODEL, mesh.make())
