"""Rows of a weight: every loss is the weighted mean worked out by hand, however a step is split."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from training import recipe

from malt_jax.learn.examples import Data
from malt_jax.learn.packing import examples, plan
from malt_jax.learn.phases import PHASES
from malt_jax.learn.phases.phase import StepData, ragged


def loss_of(name: str, lengths, logps, accumulate: int = 1, **arrays) -> float:
    """A phase's loss over a step of examples of which completion c has `lengths[i][c]` tokens, the
    log-probabilities of all of them, one completion after another, being `logps[i]`."""
    phase, settings = PHASES[name], recipe().phases[name]
    names = [str(i) for i in range(len(lengths))]
    packed = examples([[1]] * len(lengths), [[[2] * n for n in row] for row in lengths], 99, names)
    data = Data(packed, Path(), np.array(names), arrays | {"logps": ragged(logps)})
    batch = len(lengths) // accumulate
    order = plan(packed, batch=batch, accumulate=accumulate, epochs=1, seed=[0])
    batches, extra = data.step(phase, order, 0, 0)
    scores = StepData(order.order[0], packed, data.arrays, batches).of_tokens("logps")
    extra["entropy"] = np.zeros_like(scores)
    loss = phase.loss(replace(settings))
    shares = [
        loss(*jax.tree.map(lambda x, k=k: x[k], (scores, batches, extra)))[0]
        for k in range(accumulate)
    ]
    return float(sum(shares))


HALF = np.array([1.0, 0.5], np.float32)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sft_divides_by_the_weighted_tokens(accumulate):
    made = loss_of("sft", [[3], [1]], [[-1, -1, -1], [-5]], accumulate, weight=HALF)
    assert made == pytest.approx((3 + 0.5 * 5) / (3 + 0.5))
    whole = loss_of("sft", [[3], [1]], [[-1, -1, -1], [-5]], accumulate)
    assert whole == pytest.approx(8 / 4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dpo_divides_by_the_weights_of_pairs(accumulate):
    logps = [[-10.0, -9.0], [-3.0, -4.0]]
    reference = np.array([[-12, -8], [-3, -4]], np.float32)
    given = {"reference": reference, "weight": HALF}
    made = loss_of("dpo", [[1, 1], [1, 1]], logps, accumulate, **given)
    wide, none = math.log1p(math.exp(-0.6)), math.log(2)
    assert made == pytest.approx((wide + 0.5 * none) / 1.5)
    alone = loss_of("dpo", [[1, 1], [1, 1]], logps, accumulate, reference=reference)
    assert alone == pytest.approx((wide + none) / 2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rl_divides_by_the_weighted_tokens(accumulate):
    """Ratios are 1, so that the objective of a token is A log pi."""
    logps = [[-1.0], [-2.0, -2.0, -2.0]]
    given = {"advantage": np.array([0.5, -1], np.float32), "behaviour": ragged(logps)}
    made = loss_of("rl", [[1], [3]], logps, accumulate, weight=HALF, **given)
    assert made == pytest.approx(-(0.5 * -1 + 0.5 * 3 * 2) / (1 + 0.5 * 3))


def test_kto_weighs_rows_and_not_its_reference_point():
    """The mismatched completions of both rows are 0.5 above the reference."""
    logps = [[-1.0, -1.5], [-4.0, -1.5]]
    reference = np.array([[-3, -2], [-2, -2]], np.float32)
    given = {"reference": reference, "labels": np.array([True, False])}
    made = loss_of("kto", [[1, 1], [1, 1]], logps, weight=HALF, **given)
    good, bad = (1 / (1 + math.exp(0.1 * gap)) for gap in (2 - 0.5, 0.5 + 2))
    assert made == pytest.approx((good + 0.5 * bad) / 1.5)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_weight_that_all_rows_have_is_none(name):
    given = {} if name == "sft" else {"reference": np.array([[-3, -3], [-1, -4]], np.float32)}
    lengths = [[2], [1]] if name == "sft" else [[1, 1], [1, 1]]
    logps = [[-1, -2], [-5]] if name == "sft" else [[-1, -2], [-5, -3]]
    light = np.full(2, 0.125, np.float32)
    assert loss_of(name, lengths, logps, weight=light, **given) == pytest.approx(
        loss_of(name, lengths, logps, **given)
    )
