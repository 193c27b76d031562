"""Training: exact log-probabilities, exact resumption, and adapters that learn."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small

from configs.base import get_config
from malt_jax import checkpoints, datasets, mesh, settings, shards, train
from malt_jax.models import lora

MODEL = small.model(scale=4.0)


def recipe(**phase) -> settings.Settings:
    config = get_config()
    config.model.path, config.data.task = "random", "arithmetic"
    config.chain = ("refiner",)
    config.roles.refiner.prompt = "{question}"
    config.lora.rank = 4
    parsed = settings.parse(config.to_dict())
    small_phase = {"batch": 4, "epochs": 2, "checkpoint_every": 2, "learning_rate": 1e-2} | phase
    return replace(
        parsed, sft=replace(parsed.sft, **small_phase), dpo=replace(parsed.dpo, **small_phase)
    )


def write_data(workdir: Path, n: int = 10) -> None:
    rng = np.random.default_rng(0)
    encode = small.tokenizer().encode
    sft, dpo = [], []
    for i in range(n):
        a, b = rng.integers(1, 50, 2)
        prompt, good, bad = f"{a}+{b}", f"={a + b}", f"={a - b}."
        ids = {name: [*encode(text), 0] for name, text in (("good", good), ("bad", bad))}
        common = {"question_id": str(i), "prompt": prompt, "prompt_token_ids": encode(prompt)}
        sft.append(common | {"completion": good, "value": 1.0, "completion_token_ids": ids["good"]})
        dpo.append(
            common
            | {"chosen": good, "rejected": bad, "values": [1.0, 0.0]}
            | {"chosen_token_ids": ids["good"], "rejected_token_ids": ids["bad"]}
        )
    folder = workdir / "datasets" / "refiner"
    shards.write(folder / "sft.parquet", sft, datasets.SFT_SCHEMA)
    shards.write(folder / "dpo.parquet", dpo, datasets.DPO_SCHEMA)


def metrics(workdir: Path, phase: str) -> list[dict]:
    path = workdir / "checkpoints" / "refiner" / phase / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def exported(workdir: Path) -> bytes:
    return (workdir / "export" / "refiner" / "adapter_model.safetensors").read_bytes()


def test_sft_then_dpo_learn_and_export(tmp_path):
    """SFT's loss falls; DPO starts from the SFT policy, so its first margin is zero, and then
    grows."""
    write_data(tmp_path)
    train.run(tmp_path, recipe(epochs=12), MODEL, mesh.make())
    sft, dpo = metrics(tmp_path, "sft"), metrics(tmp_path, "dpo")
    assert [row["step"] for row in sft] == list(range(1, 37))
    assert sft[-1]["loss"] < 0.6 * sft[0]["loss"]
    assert abs(dpo[0]["margin"]) < 1e-4
    assert dpo[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert dpo[-1]["margin"] > 0.1
    assert dpo[-1]["accuracy"] == 1.0
    assert (tmp_path / "export" / "refiner" / "adapter_config.json").exists()


def test_a_resumed_run_is_bit_identical(tmp_path, monkeypatch):
    """Killed in the middle of an epoch of SFT and again in DPO; 3 batches an epoch, checkpoints
    every 2, so the kill is between two checkpoints."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for directory in (whole, broken):
        write_data(directory)
    train.run(whole, recipe(), MODEL, mesh.make())

    def kill_after(calls: int):
        real, count = train.steps.place, iter(range(10**6))

        def put(*args):
            if next(count) == calls:
                raise KeyboardInterrupt
            return real(*args)

        return put

    for calls in (3, 8):
        with monkeypatch.context() as patched:
            patched.setattr(train.steps, "place", kill_after(calls))
            with pytest.raises(KeyboardInterrupt):
                train.run(broken, recipe(), MODEL, mesh.make())
    assert not (broken / "export" / "refiner").exists()
    train.run(broken, recipe(), MODEL, mesh.make())
    assert exported(whole) == exported(broken)
    for phase in ("sft", "dpo"):
        one, other = metrics(whole, phase), metrics(broken, phase)
        assert [(r["step"], r["loss"]) for r in one] == [(r["step"], r["loss"]) for r in other]


def test_resuming_without_the_optimiser_state_would_show(tmp_path, monkeypatch):
    """The control of the test above: a fresh optimiser on resume changes the export."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for directory in (whole, broken):
        write_data(directory)
    train.run(whole, recipe(), MODEL, mesh.make())
    train.run(broken, recipe(), MODEL, mesh.make())
    restore = train.checkpoints.restore

    def forgetful(saved, like):
        step, state = restore(saved, like)
        return step - 2, state | {"opt_state": like["opt_state"]}

    (broken / "export" / "refiner").rename(broken / "old")
    monkeypatch.setattr(train.checkpoints, "restore", forgetful)
    monkeypatch.setattr(train.checkpoints, "save", lambda *args: None)
    train.run(broken, recipe(), MODEL, mesh.make())
    assert exported(whole) != exported(broken)


def test_accumulation_equals_a_larger_batch(tmp_path):
    """1 x 8 equals 4 x 2 though the rows have different lengths: the mean is over the step's
    tokens."""
    results = []
    for split in ({"batch": 8, "accumulate": 1}, {"batch": 2, "accumulate": 4}):
        directory = tmp_path / str(split["batch"])
        write_data(directory, n=16)
        train.run(directory, recipe(**split, learning_rate=1e-3), MODEL, mesh.make())
        results.append(directory)
    from safetensors.numpy import load_file

    one, other = (
        load_file(d / "export" / "refiner" / "adapter_model.safetensors") for d in results
    )
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor, other[name], atol=1e-4)


def test_checkpoints_hold_no_base_weights(tmp_path):
    """Adapter and two moments, and nothing else."""
    write_data(tmp_path)
    train.run(tmp_path, recipe(), MODEL, mesh.make())
    saved = checkpoints.manager(tmp_path / "checkpoints" / "refiner" / "dpo")
    stored = jax.tree.leaves(saved.restore(saved.latest_step(), args=ocp.args.StandardRestore()))
    saved.close()
    adapter = jax.tree.leaves(lora.init(MODEL.config, jax.random.key(0), rank=4, alpha=8.0))
    arrays = sorted(leaf.shape for leaf in stored if leaf.shape)
    assert arrays == sorted(leaf.shape for leaf in 3 * adapter)


def test_a_half_written_export_does_not_count(tmp_path, monkeypatch):
    """Killed between the two files of an export, a run took the role for finished."""
    write_data(tmp_path)
    save = train.save_adapter

    def killed(*args, **kwargs):
        save(*args, **kwargs)
        (args[2] / "adapter_model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "save_adapter", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(tmp_path, recipe(), MODEL, mesh.make())
    assert not (tmp_path / "export" / "refiner").exists()
    train.run(tmp_path, recipe(), MODEL, mesh.make())
    assert len(exported(tmp_path)) > 0


def test_an_empty_data_set_leaves_the_adapter_as_it_was(tmp_path):
    write_data(tmp_path)
    folder = tmp_path / "datasets" / "refiner"
    shards.write(folder / "dpo.parquet", [], datasets.DPO_SCHEMA)
    train.run(tmp_path, recipe(), MODEL, mesh.make())
    assert (tmp_path / "export" / "refiner" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "checkpoints" / "refiner" / "dpo").exists()


def test_missing_data_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"refiner/sft.parquet: not there; run --stage=datasets"):
        train.run(tmp_path, recipe(), MODEL, mesh.make())


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    write_data(tmp_path)
    with pytest.raises(FloatingPointError, match=r"refiner sft: loss .* config.sft.learning_rate"):
        train.run(tmp_path, recipe(learning_rate=1e30), MODEL, mesh.make())
