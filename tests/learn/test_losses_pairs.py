"""The preference losses against hand-computed literals, finite differences and what their papers
promise of them."""

import math
from dataclasses import fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from malt_jax.learn.losses import (
    Pairs,
    hinge,
    ipo,
    length_normalised,
    preference_loss,
    robust,
    rpo,
    sigmoid,
)

BOTH = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
LOGPS = ("chosen", "rejected", "ref_chosen", "ref_rejected")

# Log-ratios 2 and -1 of chosen, -3 and 4 of rejected: h = 5 and -5; a token, 1.5 and -1.
TWO = Pairs(
    chosen=jnp.array([-10.0, -8.0]),
    rejected=jnp.array([-12.0, -5.0]),
    ref_chosen=jnp.array([-12.0, -7.0]),
    ref_rejected=jnp.array([-9.0, -9.0]),
    chosen_tokens=jnp.array([4, 2]),
    rejected_tokens=jnp.array([3, 8]),
)
SIGMOID = partial(sigmoid, beta=0.2)
LOSSES = {
    "sigmoid": SIGMOID,
    "hinge": partial(hinge, beta=0.1),
    "ipo": partial(ipo, beta=0.2),
    "robust": partial(robust, beta=0.2, noise=0.25),
    "sigmoid_norm": partial(length_normalised, loss=partial(sigmoid, beta=2.0)),
    "rpo": partial(rpo, loss=SIGMOID, alpha=0.5),
    "rpo_tokens": partial(rpo, loss=SIGMOID, alpha=0.5, tokens=3.0),
}
EACH = pytest.mark.parametrize("name", LOSSES)


def random_pairs(seed: int, n: int = 4) -> Pairs:
    rng = np.random.default_rng(seed)
    logps = [jnp.asarray(rng.normal(size=n) * 3 - 8, jnp.float32) for _ in LOGPS]
    return Pairs(*logps, *(jnp.asarray(rng.integers(1, 9, n), jnp.int32) for _ in range(2)))


def swapped(pairs: Pairs) -> Pairs:
    return Pairs(
        pairs.rejected,
        pairs.chosen,
        pairs.ref_rejected,
        pairs.ref_chosen,
        pairs.rejected_tokens,
        pairs.chosen_tokens,
    )


def gradients(loss, pairs: Pairs, **kwargs):
    """(loss, metrics), and the gradient to the four log-probabilities."""

    def of(logps):
        return preference_loss(replace(pairs, **logps), loss, 0.2, **kwargs)

    return jax.value_and_grad(of, has_aux=True)({name: getattr(pairs, name) for name in LOGPS})


@BOTH
@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("sigmoid", [0.31326169, 1.31326169]),  # log(1 + e^-1), log(1 + e)
        ("hinge", [0.5, 1.5]),
        ("ipo", [1.0, 12.25]),  # (1.5 - 2.5)^2, (-1 - 2.5)^2
        ("robust", [-0.18673831, 1.81326169]),  # (3 l(h) - l(-h)) / 2
        ("sigmoid_norm", [0.04858735, 2.12692801]),  # log(1 + e^-3), log(1 + e^2)
        ("rpo", [0.31326169 + 5 / 4, 1.31326169 + 4 / 2]),
        ("rpo_tokens", [0.31326169 + 5 / 3, 1.31326169 + 4 / 3]),
    ],
)
def test_literals(name, want, wrap):
    np.testing.assert_allclose(wrap(LOSSES[name])(TWO), want, rtol=2e-6)
    loss, _ = wrap(lambda pairs: preference_loss(pairs, LOSSES[name], 0.2))(TWO)
    assert float(loss) == pytest.approx(sum(want) / 2, rel=2e-6)


@BOTH
@EACH
def test_metrics_literals(name, wrap):
    """Rewards are of whole completions whatever the loss, so that runs can be compared."""
    _, metrics = wrap(lambda pairs: preference_loss(pairs, LOSSES[name], 0.2))(TWO)
    assert {key: float(value) for key, value in metrics.items()} == pytest.approx(
        {
            "accuracy": 0.5,
            "margin": 0.0,
            "chosen_reward": (0.4 - 0.2) / 2,
            "rejected_reward": (-0.6 + 0.8) / 2,
            "chosen_logp": -9.0,
            "rejected_logp": -8.5,
            "pairs": 2,
        },
        abs=1e-6,
    )


@EACH
def test_gradients_equal_finite_differences(name):
    pairs = random_pairs(0)
    logps = [getattr(pairs, field) for field in LOGPS]
    tokens = (pairs.chosen_tokens, pairs.rejected_tokens)
    check_grads(
        lambda *logps: preference_loss(Pairs(*logps, *tokens), LOSSES[name], 0.2)[0],
        tuple(logps),
        1,
        ["rev"],
        eps=1e-2,
    )


@BOTH
def test_gradient_literals(wrap):
    """At h = 0 and B = 2: -beta / 4 of sigmoid, -beta / 2 of hinge; IPO's is -1 / (beta n B)."""
    zeros = jnp.zeros(2)
    start = replace(TWO, chosen=zeros, rejected=zeros, ref_chosen=zeros, ref_rejected=zeros)
    for name, chosen, rejected in (
        ("sigmoid", [-0.05, -0.05], [0.05, 0.05]),
        ("hinge", [-0.05, -0.05], [0.05, 0.05]),
        ("ipo", [-2.5 / 4, -2.5 / 2], [2.5 / 3, 2.5 / 8]),
        ("rpo", [-0.05 - 0.25 / 4, -0.05 - 0.25 / 2], [0.05, 0.05]),
    ):
        grad = wrap(lambda pairs, name=name: gradients(LOSSES[name], pairs)[1])(start)
        np.testing.assert_allclose(grad["chosen"], chosen, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(grad["rejected"], rejected, rtol=1e-6, err_msg=name)


def test_hinge_and_ipo_rest_once_the_margin_is_reached():
    """Hinge beyond beta h = 1 on either side of TWO, IPO at h = 1 / (2 beta) a token."""
    far = replace(TWO, chosen=TWO.chosen + 50.0)
    _, grad = gradients(partial(hinge, beta=0.1), far)
    np.testing.assert_array_equal(grad["chosen"], [0.0, 0.0])
    reached = replace(TWO, chosen=TWO.chosen + jnp.array([4.0, 7.0]))  # (6 / 4 + 1), (6 / 2 - 0.5)
    (loss, _), grad = gradients(LOSSES["ipo"], reached)
    assert float(loss) == 0
    np.testing.assert_array_equal(grad["chosen"], [0.0, 0.0])


@pytest.mark.parametrize(("ratio", "want"), [(1e4, 0.0), (-1e4, 0.2 * 2e4)])
def test_sigmoid_of_extreme_log_ratios(ratio, want):
    apart, zero = jnp.array([ratio]), jnp.zeros(1)
    (loss, _), grad = gradients(
        SIGMOID, Pairs(apart, -apart, zero, zero, apart * 0 + 1, apart * 0 + 1)
    )
    assert float(loss) == pytest.approx(want)
    np.testing.assert_allclose(grad["chosen"], [0.0 if ratio > 0 else -0.2])


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (partial(sigmoid, beta=0.2), 0.2),
        (partial(hinge, beta=0.01), 0.02),
        (partial(robust, beta=0.2, noise=0.1), 0.2 / 0.8),
    ],
    ids=["sigmoid", "hinge", "robust"],
)
def test_a_swapped_pair_differs_by_a_multiple_of_its_log_ratio(loss, slope):
    pairs = random_pairs(3)
    h = (pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected)
    np.testing.assert_allclose(loss(pairs) - loss(swapped(pairs)), -slope * h, rtol=1e-4)
    metrics = preference_loss(pairs, loss, 0.2)[1]
    other = preference_loss(swapped(pairs), loss, 0.2)[1]
    assert float(other["margin"]) == pytest.approx(-float(metrics["margin"]), rel=1e-5)
    assert float(other["accuracy"]) == 1 - float(metrics["accuracy"])
    assert float(other["chosen_logp"]) == float(metrics["rejected_logp"])


@pytest.mark.parametrize("name", ["sigmoid", "hinge", "ipo", "robust", "sigmoid_norm"])
def test_only_the_ratio_to_the_reference_matters(name):
    """What policy and reference both gain cancels; only the SFT term sees the policy itself."""
    pairs = random_pairs(4)
    moved = replace(pairs, chosen=pairs.chosen + 2.0, ref_chosen=pairs.ref_chosen + 2.0)
    np.testing.assert_allclose(LOSSES[name](moved), LOSSES[name](pairs), rtol=1e-4, atol=1e-5)


def test_the_policy_at_the_reference():
    """Losses log 2, 1 of hinge and 1 / (2 beta)^2 of IPO; a tie is no win, as in TRL."""
    pairs = replace(TWO, ref_chosen=TWO.chosen, ref_rejected=TWO.rejected)
    for name, want in (("sigmoid", math.log(2)), ("hinge", 1), ("ipo", 2.5**2)):
        loss, metrics = preference_loss(pairs, LOSSES[name], 0.2)
        assert float(loss) == pytest.approx(want)
        assert float(metrics["accuracy"]) == 0
    np.testing.assert_allclose(LOSSES["robust"](pairs), math.log(2), rtol=1e-6)


def test_as_beta_goes_to_zero_every_pair_is_undecided():
    """To first order in beta: log 2 - beta h / 2 and 1 - beta h."""
    np.testing.assert_allclose(sigmoid(TWO, beta=1e-4), math.log(2) + np.array([-1, 1]) * 2.5e-4)
    np.testing.assert_allclose(hinge(TWO, beta=1e-4), [1 - 5e-4, 1 + 5e-4], rtol=1e-6)


def test_robust_without_noise_is_sigmoid_and_with_noise_unbiased():
    """Averaged over the flips it allows for, the loss is that of the true labels."""
    pairs = random_pairs(5)
    np.testing.assert_array_equal(robust(pairs, beta=0.3, noise=0.0), sigmoid(pairs, beta=0.3))
    noisy = partial(robust, beta=0.3, noise=0.2)
    mean = 0.8 * noisy(pairs) + 0.2 * noisy(swapped(pairs))
    np.testing.assert_allclose(mean, sigmoid(pairs, beta=0.3), rtol=1e-4)
    for noise in (0.5, -0.1):
        with pytest.raises(ValueError, match=r"must be in \[0, 0.5\)"):
            robust(pairs, beta=0.3, noise=noise)


@pytest.mark.parametrize("name", ["ipo", "sigmoid_norm"])
def test_length_normalised_losses_do_not_see_length(name):
    """Completions three times as long with the same log-probability a token; sigmoid does see."""
    pairs = random_pairs(6)
    long = jax.tree.map(lambda x: 3 * x, pairs)
    np.testing.assert_allclose(LOSSES[name](long), LOSSES[name](pairs), rtol=1e-4)
    assert np.abs(SIGMOID(long) - SIGMOID(pairs)).max() > 0.1
    np.testing.assert_allclose(
        length_normalised(pairs, loss=LOSSES["ipo"]), LOSSES["ipo"](pairs), rtol=1e-6
    )


def test_rpo_composes_with_any_loss():
    pairs = random_pairs(7)
    for loss in LOSSES.values():
        added = rpo(pairs, loss=loss, alpha=2.0) - loss(pairs)
        np.testing.assert_allclose(added, -2 * pairs.chosen / pairs.chosen_tokens, rtol=1e-4)
        np.testing.assert_array_equal(rpo(pairs, loss=loss, alpha=0.0), loss(pairs))


@BOTH
@EACH
def test_rows_of_padding_count_for_nothing(name, wrap):
    """Even where they hold NaN, infinities and no tokens: not in loss, metrics or gradients."""
    rows = random_pairs(1, 2)
    bad = jnp.array([jnp.nan, jnp.inf, -1e30])
    none = jnp.array([0, 0, -1])
    padded = Pairs(
        *(
            jnp.concatenate([value, bad if field.name in LOGPS else none])
            for field in fields(rows)
            for value in [getattr(rows, field.name)]
        )
    )
    grad = wrap(lambda pairs, weights: gradients(LOSSES[name], pairs, weights=weights))
    want, want_grad = grad(rows, jnp.ones(2))
    got, got_grad = grad(padded, jnp.array([1, 1, 0, 0, 0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
    for field in LOGPS:
        expected = jnp.concatenate([want_grad[field], jnp.zeros(3)])
        np.testing.assert_allclose(got_grad[field], expected, rtol=1e-6)


@EACH
def test_a_batch_of_nothing_is_zero(name):
    loss, metrics = preference_loss(TWO, LOSSES[name], 0.2, weights=jnp.zeros(2))
    assert float(loss) == 0
    assert not any(float(value) for value in metrics.values())


@EACH
def test_micro_batches_with_the_whole_denominator_average_to_the_whole_batch(name):
    pairs, weights = random_pairs(2), jnp.array([1, 1, 1, 0])
    want = float(preference_loss(pairs, LOSSES[name], 0.2, weights=weights)[0])
    halves = [
        preference_loss(
            jax.tree.map(lambda x, cut=cut: x[cut], pairs),
            LOSSES[name],
            0.2,
            weights=weights[cut],
            denominator=3 / 2,
        )[0]
        for cut in (slice(0, 2), slice(2, 4))
    ]
    assert float(np.mean(halves)) == pytest.approx(want, rel=1e-5)
