"""What is held out stays out, and its best step is the one that is kept."""

import json
import logging
import math
from contextlib import nullcontext
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from preferences import adapter, dpo
from safetensors.numpy import load_file
from training import MODEL, metrics, recipe, with_phase, write_data

from malt_jax.learn import examples, logprobs, loop, scoring, steps, validation
from malt_jax.learn.packing import plan
from malt_jax.learn.phases import PHASES
from malt_jax.runtime import mesh, process
from malt_jax.stages import train
from malt_jax.workdir import checkpoints


def test_a_questions_rows_are_on_one_side_in_every_phase():
    names = np.array([str(i % 50) for i in range(200)])
    out = examples.held_out(names, 0.2, seed=3)
    sides = {name: set(out[names == name]) for name in set(names)}
    assert all(len(side) == 1 for side in sides.values())
    assert 4 <= sum(side == {True} for side in sides.values()) <= 16
    some = names[::3]
    np.testing.assert_array_equal(examples.held_out(some, 0.2, seed=3), out[::3])
    assert (examples.held_out(names, 0.2, seed=4) != out).any()


def test_never_all_and_with_share_0_none():
    names = np.array(["a", "b", "a"])
    assert not examples.held_out(names, 0.0, seed=0).any()
    for seed in range(20):
        assert not examples.held_out(names[::2], 0.9, seed).any()
        assert not examples.held_out(names, 0.9, seed).all()


def test_kto_takes_a_completion_of_another_question_of_its_side_that_fits():
    def row(i: int, question: str, prompt: int, length: int) -> dict:
        tokens = {"prompt_token_ids": [1] * prompt, "completion_token_ids": [i] * length}
        return {"question_id": question} | tokens

    sizes = [("a", 2, 3), ("a", 2, 3), ("b", 9, 1), ("c", 2, 9), ("d", 2, 1)]
    rows = [row(i, *size) for i, size in enumerate(sizes)]
    out = np.array([False, False, False, False, True])
    # b's prompt leaves no room for c's completion; d has nobody on its side.
    completions = PHASES["kto"].completions(rows, out, 12)
    assert [written for written, _ in completions] == [row["completion_token_ids"] for row in rows]
    assert [other[0] for _, other in completions] == [2, 2, 0, 0, 4]


@pytest.mark.parametrize(
    ("evaluations", "best", "stale"),
    [
        ([], None, 0),
        ([(2, 1.0)], 2, 0),
        ([(2, 1.0), (4, 1.0), (6, 2.0)], 2, 2),
        ([(2, 1.0), (4, math.inf), (6, 0.5)], 6, 0),
        ([(2, math.inf), (4, math.inf)], None, 2),
    ],
)
def test_best_and_stale(evaluations, best, stale):
    assert validation.best(evaluations) == best
    assert validation.stale(evaluations) == stale
    if best:
        assert validation.best([(2, 1.0), (4, 0.5)], until=3) == 2


def test_kl_is_exact_over_the_vocabulary(tmp_path, monkeypatch):
    """Against whole rows with logits in full; chunks of 4 positions."""
    write_data(tmp_path)
    monkeypatch.setattr(logprobs, "CHUNK", 4)
    steps.scoring.cache_clear()  # programs with chunks of another length
    path = tmp_path / "datasets" / "refiner" / "sft.parquet"
    phase = PHASES["sft"]
    data, _ = examples.load(path, tmp_path, phase, recipe(), MODEL, mesh.make(), adapter(0))
    chosen = recipe().phases["sft"]
    evaluate = validation.evaluator(phase, chosen, MODEL, mesh.make(), adapter(2), data)
    figures = evaluate(adapter(1))
    packed, total = data.examples, 0.0
    for i in range(len(packed)):
        row = packed.tokens[packed.starts[i] : packed.starts[i + 1]]
        ours, theirs = (distributions(adapter(seed), row) for seed in (1, 2))
        kl = (np.exp(ours) * (ours - theirs)).sum(-1)
        total += kl[packed.prompts[i] - 1 : -1].sum()
    want = total / packed.completions.sum()
    assert want > 0.01
    assert figures["kl"] == pytest.approx(want, rel=1e-3)
    assert evaluate(adapter(2))["kl"] == pytest.approx(0, abs=1e-6)
    steps.scoring.cache_clear()


def distributions(adapter, row) -> np.ndarray:
    padded = jnp.array([*row, *[0] * (32 - len(row))])
    logps = small.full_pass(MODEL.config, MODEL.params, padded, adapter)
    return np.asarray(logps, np.float64)[: len(row)]


def test_the_watchdog_waits_for_one_micro_batch_at_a_time(tmp_path, monkeypatch):
    """It took a held-out pass of more than half an hour for a hang, at every restart."""
    write_data(tmp_path)
    path, phase = tmp_path / "datasets" / "refiner" / "sft.parquet", PHASES["sft"]
    data, _ = examples.load(path, tmp_path, phase, recipe(), MODEL, mesh.make(), adapter(0))
    waits = []

    def watched(work):
        waits.append(work)
        return nullcontext()

    monkeypatch.setattr(process, "watched", watched)
    chosen = replace(recipe().phases["sft"], batch=2)
    validation.evaluator(phase, chosen, MODEL, mesh.make(), adapter(2), data)(adapter(1))
    assert waits == ["held-out loss"] * 5


def test_kl_never_makes_tokens_by_vocabulary():
    rng = np.random.default_rng(0)
    rows = [rng.integers(4, 90, 200).tolist() for _ in range(2)]
    data = examples.examples([r[:10] for r in rows], [[r[10:]] for r in rows], 512, ["a", "b"])
    order = plan(data, batch=2, accumulate=1, epochs=1, seed=[0])
    batches, _ = steps.place(mesh.make(), examples.take(data, order, 0, 3), {})
    score = steps.scoring(MODEL.config, lambda logps, batch, extra: (logps.sum(), {}))
    text = score.lower(None, 0, MODEL.params, adapter(1), adapter(2), batches, {}).as_text()
    vocabulary = MODEL.config.vocab_size
    assert f"x{logprobs.CHUNK}x{vocabulary}xf32" in text
    assert f"x{order.predictions}x{vocabulary}xf32" not in text
    assert f"x{3 * logprobs.CHUNK}x{vocabulary}xf32" not in text


def test_the_best_adapter_is_kept_and_returned_and_patience_ends_a_phase(tmp_path, monkeypatch):
    """Held-out losses as planted: best at step 4, and at step 8 patience is over. The start, which
    has a lower one, is on record alone."""
    write_data(tmp_path)
    planted = iter([1.0, 5.0, 3.0, 4.0, 3.0])
    monkeypatch.setattr(
        validation, "evaluator", lambda *args: lambda adapter: {"loss": next(planted), "kl": 0.0}
    )
    returned = []
    real = loop._best

    def best(*args):
        returned.append(real(*args))
        return returned[-1]

    monkeypatch.setattr(loop, "_best", best)
    settings = recipe(
        ("sft",), held_out=0.3, eval_every=2, patience=2, checkpoint_every=3, epochs=9
    )
    train.run(tmp_path, settings, MODEL, mesh.make())
    rows = metrics(tmp_path, "sft")
    evaluations = [row for row in rows if row.get("eval")]
    assert [(row["step"], row["best"]) for row in evaluations] == [
        (0, False), (2, True), (4, True), (6, False), (8, False),
    ]  # fmt: skip
    assert [row["stopped_early"] for row in evaluations] == [False, False, False, False, True]
    assert rows[-1]["step"] == 8
    folder = tmp_path / "checkpoints" / "refiner" / "sft"
    # 2 was the best for a run resumed from checkpoint 3, which was there when 4 was written.
    assert sorted(path.name for path in (folder / "best").iterdir()) == ["2", "4"]
    assert sorted(path.name for path in folder.glob("[0-9]*")) == ["6", "8"]
    kept = returned[0]
    four = checkpoints.load(folder.absolute() / "best" / "4", kept)
    jax.tree.map(np.testing.assert_array_equal, kept, four)
    assert (tmp_path / "export" / "refiner").exists()
    # Started again it ends at once, with the same adapter and no other evaluation.
    (tmp_path / "export" / "refiner").rename(tmp_path / "old")
    train.run(tmp_path, settings, MODEL, mesh.make())
    jax.tree.map(np.testing.assert_array_equal, kept, returned[1])
    assert metrics(tmp_path, "sft") == rows


def test_a_dpo_that_only_harms_leaves_the_role_what_it_was(tmp_path, monkeypatch, caplog):
    """One whose held-out loss was above the start's wherever it was scored was kept."""
    write_data(tmp_path)
    planted = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(
        validation, "evaluator", lambda *args: lambda adapter: {"loss": next(planted)}
    )
    settings = recipe(("dpo",), held_out=0.3, eval_every=2)
    train.run(tmp_path, settings, MODEL, mesh.make())
    rows = [row for row in metrics(tmp_path, "dpo") if row.get("eval")]
    assert [(row["step"], row["best"]) for row in rows] == [(0, True), (2, False), (4, False)]
    exported = load_file(tmp_path / "export" / "refiner" / "adapter_model.safetensors")
    assert not any(tensor.any() for name, tensor in exported.items() if "lora_B" in name)
    assert "stays what it was; lower config.dpo.learning_rate" in caplog.text


def test_dpo_is_evaluated_with_rewards_and_kl_and_rows_held_out_are_not_trained_on(
    tmp_path, caplog
):
    """In one compilation of the step and one of the evaluation."""
    write_data(tmp_path)
    chosen = dpo("sigmoid", batch=4, held_out=0.3, epochs=8, eval_every=4, checkpoint_every=100)
    settings = with_phase(recipe(("dpo",)), "dpo", chosen)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        train.run(tmp_path, settings, MODEL, mesh.make())
    for program in ("step", "score"):
        assert caplog.text.count(f"Compiling jit({program})") == 1
    rows = metrics(tmp_path, "dpo")
    last = next(row for row in reversed(rows) if row.get("eval"))
    assert last["kl"] > 0
    wanted = {"loss", "accuracy", "margin", "chosen_logp", "rejected_logp", "chosen_reward", "nll"}
    assert wanted <= set(last)
    a_step = {"grad_norm", "lr", "tokens", "tokens_per_second", "padding", "flops_per_second"}
    first = next(row for row in rows if not row.get("eval"))
    assert a_step | {"peak_share", "nonfinite"} <= set(first)
    assert 0 <= first["padding"] < 1
    path = tmp_path / "datasets" / "refiner" / "dpo.parquet"
    settings = recipe(held_out=0.3)
    training, other = examples.load(
        path, tmp_path, PHASES["dpo"], settings, MODEL, mesh.make(), adapter(0)
    )
    assert not set(training.questions) & set(other.questions)
    assert len(training) + len(other) == 10
    epoch = [row["tokens"] for row in rows if not row.get("eval")][: -(-len(training) // 4)]
    assert sum(epoch) == training.examples.sizes.sum()


def test_the_reference_is_computed_once(tmp_path, monkeypatch):
    write_data(tmp_path)
    path = tmp_path / "datasets" / "refiner" / "dpo.parquet"
    args = (path, tmp_path, PHASES["dpo"], recipe(), MODEL, mesh.make())
    first, _ = examples.load(*args, adapter(1))
    monkeypatch.setattr(scoring, "sequence_logprobs", None)
    again, _ = examples.load(*args, adapter(1))
    np.testing.assert_array_equal(first.arrays["reference"], again.arrays["reference"])
    with pytest.raises(TypeError):
        examples.load(*args, adapter(2))


def test_too_few_questions_are_not_held_out_and_that_is_said(tmp_path, caplog):
    write_data(tmp_path, n=1)
    with caplog.at_level(logging.INFO):
        train.run(tmp_path, recipe(("sft",), held_out=0.5), MODEL, mesh.make())
    assert caplog.text.count("too few questions to hold any out") == 1
    assert all("eval" not in row for row in metrics(tmp_path, "sft"))
    json.dumps(metrics(tmp_path, "sft"), allow_nan=False)
