"""The optimiser step: exact under accumulation, harmless when not finite, compiled once."""

import logging
from functools import lru_cache

import jax
import numpy as np
import optax
import pytest
from stepping import DATA, LENGTHS, MESH, MODEL, TX, sft, start

from malt_jax.learn import steps
from malt_jax.learn.packing import examples, plan, take


@lru_cache
def compiled():
    return steps.training(MODEL.config, TX, sft, start(), remat="keep_products")


def inputs(batch, accumulate, factor=1.0, seed=0):
    order = plan(DATA, batch=batch, accumulate=accumulate, epochs=1, seed=[seed])
    tokens = DATA.completions.sum()
    extra = {"denominator": tokens, "factor": factor}
    extra = {name: np.full(accumulate, value, np.float32) for name, value in extra.items()}
    return steps.place(MESH, take(DATA, order, 0, pad_id=3), extra)


def gradients(batch, accumulate):
    """The step's own gradients, by an optimiser that hands them out as its updates."""
    tx = optax.identity()
    state, before = start(tx), jax.tree.map(np.asarray, start(tx)["adapter"])
    step = steps.training(MODEL.config, tx, sft, state, remat="keep_products")
    state, metrics = step(MODEL.params, state, *inputs(batch, accumulate))
    return jax.tree.map(lambda a, b: np.asarray(a) - b, state["adapter"], before), metrics


def test_eight_micro_batches_of_one_equal_one_batch_of_eight():
    """Completions of 1 to 30 tokens: averaging the micro-batches' own means is not the same."""
    (whole, first), (parts, second) = gradients(8, 1), gradients(1, 8)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.abs(a).max() > 1e-3
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name in ("loss", "grad_norm", "tokens", "predicted", "computed"):
        assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-5)
    assert first["predicted"] == sum(c for _, c in LENGTHS)
    assert first["computed"] == sum(p + c for p, c in LENGTHS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_step_that_is_not_finite_changes_no_bit(bad):
    """A NaN or infinite loss, and a finite one whose gradient's norm overflows; then training goes
    on as if the step had not been."""
    state, _ = compiled()(MODEL.params, start(), *inputs(8, 1))
    before = jax.tree.map(np.asarray, state)
    state, metrics = compiled()(MODEL.params, state, *inputs(8, 1, factor=bad))
    assert not metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, state))
    state, metrics = compiled()(MODEL.params, state, *inputs(8, 1))
    assert metrics["finite"]
    moved = jax.tree.map(lambda a, b: (a != b).any(), before, state)
    assert all(jax.tree.leaves(moved))


def test_evaluation_gives_the_loss_of_training_before_its_update():
    adapter = start()["adapter"]
    evaluate = steps.evaluation(MODEL.config, sft)
    want = evaluate(MODEL.params, adapter, adapter, *inputs(4, 2))
    _, got = compiled()(MODEL.params, start(), *inputs(4, 2))
    assert want.pop("kl") == 0
    assert set(want) == set(got) - {"grad_norm", "finite"}
    for name, value in want.items():
        assert float(got[name]) == pytest.approx(float(value), rel=1e-5)


def test_a_phase_compiles_its_step_once(caplog):
    """Also from a fresh optimiser state to a trained one, and with other examples."""
    step = steps.training(MODEL.config, TX, sft, start(), remat="keep_all")
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        state = start()
        for seed in range(4):
            state, _ = step(MODEL.params, state, *inputs(8, 1, seed=seed))
    compilations = [r for r in caplog.records if "Compiling jit(step)" in r.getMessage()]
    assert len(compilations) == 1


def test_the_state_is_donated():
    state = start()
    compiled()(MODEL.params, state, *inputs(8, 1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_what_is_kept_shows_in_the_memory_of_the_step():
    """XLA's CPU compiler used to keep every intermediate, whatever was asked for."""
    data = examples([[5] * 200] * 4, [[[6] * 200]] * 4, 512, list("abcd"))
    batches = take(data, plan(data, batch=4, accumulate=1, epochs=1, seed=[0]), 0, pad_id=3)
    extra = {"denominator": np.ones(1, np.float32), "factor": np.ones(1, np.float32)}
    sizes = []
    for remat in ("keep_all", "keep_products", "keep_inputs"):
        step = steps.training(MODEL.config, TX, sft, start(), remat=remat)
        lowered = step.lower(MODEL.params, start(), *steps.place(MESH, batches, extra))
        sizes.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    assert sizes[0] > 1.1 * sizes[1] > 1.2 * sizes[2]
