"""Steps that are not finite: left out, counted, written out, and at last the end of the run."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from training import MODEL, exported, metrics, recipe, write_data

from malt_jax.learn import loop, optim
from malt_jax.runtime import mesh
from malt_jax.stages import train


def planted(monkeypatch, *bad: int) -> None:
    """The denominator of these steps' loss is NaN."""
    real = loop.steps.place
    count = iter(range(1, 10**6))

    def place(devices, batches, extra):
        if "nll_tokens" in extra and next(count) in bad:
            extra = extra | {"nll_tokens": extra["nll_tokens"] * np.float32("nan")}
        return real(devices, batches, extra)

    monkeypatch.setattr(loop.steps, "place", place)


def test_a_step_that_is_not_finite_is_left_out_counted_and_written_out(tmp_path, monkeypatch):
    write_data(tmp_path)
    planted(monkeypatch, 3)
    settings = recipe(("sft",), epochs=3)
    train.run(tmp_path, settings, MODEL, mesh.make())
    rows = metrics(tmp_path, "sft")
    assert [row["finite"] for row in rows] == [1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert [row["nonfinite"] for row in rows] == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert rows[2]["loss"] is None
    # The schedule goes on where it was: nothing is skipped, and step 4 has the rate of step 3.
    chosen = settings.phases["sft"]
    rate = optim.schedule(chosen.learning_rate, 9, chosen.warmup)
    wanted = [float(rate(i)) for i in (0, 1, 2, 2, 3, 4, 5, 6, 7)]
    assert [row["lr"] for row in rows] == wanted
    folder = tmp_path / "checkpoints" / "refiner" / "sft"
    with np.load(folder / "nonfinite-3.npz") as dump:
        assert str(dump["source"]) == str(tmp_path / "datasets" / "refiner" / "sft.parquet")
        assert len(dump["order"]) == len(dump["questions"]) == 2
        assert len(dump["token_ids"]) == dump["starts"][-1] > 0
    with loop.checkpoints.opened(folder) as saved:
        path = folder / str(loop.checkpoints.steps(saved)[-1])
        with loop.checkpoints.ocp.StandardCheckpointer() as orbax:
            stored = orbax.restore(path.absolute())
    counts = {int(x) for x in jax.tree.leaves(stored) if not x.shape and x.dtype == np.int32}
    assert counts == {8}


@pytest.mark.parametrize("phase", ["sft", "dpo"])
def test_the_last_allowed_one_ends_the_run_with_files_step_and_fix(phase, tmp_path, monkeypatch):
    """SFT with a loss that is NaN at steps 2 and 4, and DPO with an infinite weight."""
    write_data(tmp_path)
    model, steps = MODEL, (2, 4)
    if phase == "sft":
        planted(monkeypatch, *steps)
    else:
        norm = jax.tree.map(lambda x: x * np.float32("inf"), MODEL.params["norm"])
        model, steps = replace(MODEL, params=MODEL.params | {"norm": norm}), (1, 2)
    with pytest.raises(FloatingPointError) as caught:
        train.run(tmp_path, recipe((phase,), max_nonfinite=2, epochs=3), model, mesh.make())
    message, folder = str(caught.value), tmp_path / "checkpoints" / "refiner" / phase
    assert message.startswith(f"refiner {phase}: loss nan")
    assert f"at step {steps[1]};" in message
    for key in (f"config.{phase}.learning_rate", f"config.{phase}.max_nonfinite"):
        assert key in message
    for step in steps:
        assert str(folder / f"nonfinite-{step}.npz") in message
        assert (folder / f"nonfinite-{step}.npz").exists()
    assert [row["nonfinite"] for row in metrics(tmp_path, phase)][-1] == 2
    assert not (tmp_path / "export").exists()


def test_a_resumed_run_remembers_what_was_left_out(tmp_path, monkeypatch):
    """Step 2 before the checkpoint, then a kill: the count and the rate go on from it."""
    write_data(tmp_path)
    planted(monkeypatch, 2)
    settings = recipe(("sft",), epochs=2)
    real = loop._not_finite

    def killed(phase, step, values):
        real(phase, step, values)
        raise KeyboardInterrupt

    train.run(tmp_path, settings, MODEL, mesh.make())
    whole, rows = exported(tmp_path), metrics(tmp_path, "sft")
    again = tmp_path / "again"
    write_data(again)
    with monkeypatch.context() as patched:
        planted(patched, 2, 5)
        patched.setattr(
            loop, "_not_finite", lambda p, s, v: killed(p, s, v) if s == 5 else real(p, s, v)
        )
        with pytest.raises(KeyboardInterrupt):
            train.run(again, settings, MODEL, mesh.make())
    monkeypatch.undo()
    train.run(again, settings, MODEL, mesh.make())
    assert exported(again) == whole
    assert [row["lr"] for row in metrics(again, "sft")] == [row["lr"] for row in rows]
