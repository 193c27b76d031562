"""Token log-probabilities, SFT and KTO against hand-computed literals and finite differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from malt_jax.learn.losses import sft_loss, token_logprobs
from malt_jax.learn.unpaired import Unpaired, kl_reference, kto_loss

BOTH = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


@BOTH
def test_token_logprobs_literals(wrap):
    logits = jnp.log(jnp.array([[[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]])) + 7.0
    got = wrap(token_logprobs)(logits, jnp.array([[2, 0]]))
    np.testing.assert_allclose(got, [[math.log(5 / 8), math.log(1 / 4)]], rtol=1e-5)


def test_token_logprobs_of_extreme_logits_are_finite():
    logits = jnp.array([[1e4, -1e4], [1e4, -1e4]])
    np.testing.assert_array_equal(token_logprobs(logits, jnp.array([0, 1])), [0.0, -2e4])


@BOTH
def test_sft_literals(wrap):
    """(0.5 + 1 + 3) / 3: a mean over tokens; the mean over rows would be (0.75 + 3) / 2."""
    logps = jnp.array([[-9.0, -0.5, -1.0], [-9.0, -3.0, -9.0]])
    mask = jnp.array([[0, 1, 1], [0, 1, 0]])
    loss, metrics = wrap(sft_loss)(logps, mask)
    assert float(loss) == pytest.approx(1.5)
    assert float(metrics["nll"]) == pytest.approx(1.5)
    assert float(metrics["tokens"]) == 3


def test_sft_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    targets, mask = jnp.array([[0, 1, 2], [3, 4, 0]]), jnp.array([[0, 1, 1], [1, 1, 0]])
    check_grads(
        lambda z: sft_loss(token_logprobs(z, targets), mask)[0], (logits,), 1, ["rev"], eps=1e-2
    )


@BOTH
def test_sft_rows_of_padding_count_for_nothing(wrap):
    """Even where they hold NaN and infinities."""
    logps = jnp.array([[-1.0, -jnp.inf], [jnp.nan, -2.0], [jnp.nan, jnp.inf]])
    mask = jnp.array([[1, 0], [0, 1], [1, 1]])
    sft = wrap(jax.value_and_grad(sft_loss, has_aux=True))
    (loss, metrics), grad = sft(logps, mask, weights=jnp.array([1, 1, 0]))
    assert (float(loss), float(metrics["tokens"])) == (1.5, 2)
    np.testing.assert_allclose(grad, [[-0.5, 0.0], [0.0, -0.5], [0.0, 0.0]])


def test_sft_of_nothing_is_zero():
    assert float(sft_loss(jnp.ones((1, 2)), jnp.zeros((1, 2)))[0]) == 0


def test_sft_micro_batches_with_the_whole_denominator_average_to_the_whole_batch():
    """Rows of 1 to 4 completion tokens; averaging the micro-batches' own means is not the same."""
    logps = jnp.asarray(np.random.default_rng(2).normal(size=(4, 4)), jnp.float32)
    mask = jnp.tril(jnp.ones((4, 4), bool))
    whole = float(sft_loss(logps, mask)[0])
    rows = list(zip(logps[:, None], mask[:, None], strict=True))
    parts = [sft_loss(row, m, denominator=10 / 4)[0] for row, m in rows]
    assert float(np.mean(parts)) == pytest.approx(whole, rel=1e-6)
    alone = [sft_loss(row, m)[0] for row, m in rows]
    assert float(np.mean(alone)) != pytest.approx(whole, rel=1e-2)


def unpaired(ratios, labels) -> Unpaired:
    """Rows with these log-ratios to the reference."""
    ratios = jnp.asarray(ratios, jnp.float32)
    return Unpaired(ratios - 5.0, jnp.full(ratios.shape, -5.0), jnp.asarray(labels, bool))


ROWS = unpaired([2.0, -1.0, 0.0], [True, False, False])


@BOTH
def test_kto_literals(wrap):
    """1 - sigmoid(0.5), 2 (1 - sigmoid(1)) and 2 (1 - sigmoid(0.5)): beta 0.5, z0 = 1."""
    loss, metrics = wrap(partial(kto_loss, undesirable_weight=2.0))(ROWS, 1.0, 0.5)
    assert float(loss) == pytest.approx((0.37754067 + 0.53788284 + 0.75508134) / 3, rel=1e-6)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {
            "chosen_reward": 1.0,
            "rejected_reward": -0.25,
            "margin": 1.25,
            "chosen_logp": -3.0,
            "rejected_logp": -5.5,
            "kl": 1.0,
            "desirable": 1,
            "undesirable": 2,
        }
    )
    weighted, _ = wrap(partial(kto_loss, desirable_weight=3.0))(ROWS, 1.0, 0.5)
    assert float(weighted) == pytest.approx((3 * 0.37754067 + 0.26894142 + 0.37754067) / 3)


@BOTH
def test_kl_reference_literals(wrap):
    """The mean of 2 and -1; a mean below zero is no divergence and counts as 0."""
    zeros = jnp.zeros(3)
    ratios, weights = jnp.array([2.0, -1.0, jnp.nan]), jnp.array([1, 1, 0])
    assert float(wrap(kl_reference)(ratios, zeros, weights)) == pytest.approx(0.5)
    assert float(wrap(kl_reference)(-ratios, zeros, weights)) == 0
    assert float(wrap(kl_reference)(ratios, zeros, zeros)) == 0


def test_kto_gradient_equals_finite_differences():
    def loss(completion, ref_completion):
        rows = Unpaired(completion, ref_completion, ROWS.label)
        return kto_loss(rows, 0.3, 0.7, undesirable_weight=1.5)[0]

    check_grads(loss, (ROWS.completion, ROWS.ref_completion), 1, ["rev"], eps=1e-2)


@BOTH
def test_kto_pulls_rows_apart_and_not_through_the_reference_point(wrap):
    """dL/d log pi = -+ beta s (1 - s) / B, s = sigmoid(0.5 (ratio - z0)); z0 has no gradient."""

    def loss(completion, shift):
        kl = kl_reference(completion[:2] + shift, jnp.array([-5.0, -5.0]))
        return kto_loss(Unpaired(completion, ROWS.ref_completion, ROWS.label), kl + shift, 0.5)[0]

    pull, through = wrap(jax.grad(loss, (0, 1)))(ROWS.completion, jnp.float32(0.0))
    s = [1 / (1 + math.exp(-0.5 * (ratio - 0.5))) for ratio in (2, -1, 0)]
    want = [sign * 0.5 * x * (1 - x) / 3 for sign, x in zip((-1, 1, 1), s, strict=True)]
    np.testing.assert_allclose(pull, want, rtol=1e-5)
    assert float(through) == 0


def test_kto_mirror_and_limits():
    """The other label sees 1 - loss; at beta 0 every row is at half; far off nothing is NaN."""
    flipped = Unpaired(ROWS.completion, ROWS.ref_completion, ~ROWS.label)
    both = kto_loss(ROWS, 0.4, 0.3)[0] + kto_loss(flipped, 0.4, 0.3)[0]
    assert float(both) == pytest.approx(1.0)
    assert float(kto_loss(ROWS, 0.4, 1e-6)[0]) == pytest.approx(0.5, abs=1e-5)
    far = unpaired([1e4, -1e4, -1e4, 1e4], [True, False, True, False])
    value, grad = jax.value_and_grad(lambda rows: kto_loss(rows, 0.0, 0.2)[0], allow_int=True)(far)
    assert float(value) == 0.5
    np.testing.assert_array_equal(grad.completion, np.zeros(4))


def test_a_well_learnt_row_keeps_its_small_loss():
    """1 - sigmoid(20) is 0 in float32; sigmoid(-20) is 2.06e-9."""
    loss, _ = kto_loss(unpaired([20.0], [True]), 0.0, 1.0)
    assert float(loss) == pytest.approx(2.0611537e-09, rel=1e-5)


@BOTH
def test_kto_rows_of_padding_count_for_nothing(wrap):
    bad = jnp.array([jnp.nan, jnp.inf, -1e30])
    padded = Unpaired(
        jnp.concatenate([ROWS.completion, bad]),
        jnp.concatenate([ROWS.ref_completion, bad]),
        jnp.concatenate([ROWS.label, jnp.array([True, True, False])]),
    )
    kto = wrap(jax.value_and_grad(kto_loss, has_aux=True, allow_int=True))
    want, want_grad = kto(ROWS, 0.2, 0.5)
    got, got_grad = kto(padded, 0.2, 0.5, weights=jnp.array([1, 1, 1, 0, 0, 0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
    for name in ("completion", "ref_completion"):
        expected = jnp.concatenate([getattr(want_grad, name), jnp.zeros(3)])
        np.testing.assert_allclose(getattr(got_grad, name), expected, rtol=1e-6)
    assert float(kto_loss(ROWS, 0.2, 0.5, weights=jnp.zeros(3))[0]) == 0


def test_kto_micro_batches_with_the_whole_denominator_average_to_the_whole_batch():
    whole = float(kto_loss(ROWS, 0.2, 0.5)[0])
    cuts = [jax.tree.map(lambda x, cut=cut: x[cut], ROWS) for cut in (slice(0, 1), slice(1, 3))]
    parts = [kto_loss(rows, 0.2, 0.5, denominator=3 / 2)[0] for rows in cuts]
    assert float(np.mean(parts)) == pytest.approx(whole, rel=1e-6)
