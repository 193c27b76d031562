"""What the sampler draws: truncation, inverse transform, frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.sampler.draw import ByRow, Sampling, draw, draw_by_row, inverse_cdf, truncate


def test_truncate_literals():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    np.testing.assert_array_equal(
        jnp.isfinite(truncate(logits, 2, 1.0)), [False, True, False, True]
    )
    # 0.4 alone has less than 0.5; with 0.3 it has 0.7.
    for top_p, kept in [(0.3, 1), (0.5, 2), (0.71, 3), (0.95, 4)]:
        assert int(jnp.isfinite(truncate(logits, 0, top_p)).sum()) == kept
    assert int(jnp.isfinite(truncate(logits, 3, 0.5)).sum()) == 2


@pytest.mark.parametrize("vocab", [5, 256, 1000])
def test_inverse_cdf_equals_a_search_in_the_running_sum(vocab):
    rng = np.random.default_rng(vocab)
    probs = rng.dirichlet(np.full(vocab, 0.3), 200).astype(np.float32)
    probs[:, rng.integers(0, vocab, vocab // 2)] = 0.0
    uniform = rng.random(200).astype(np.float32)
    got = np.asarray(inverse_cdf(jnp.array(probs), jnp.array(uniform)))
    sums = np.cumsum(probs.astype(np.float64), -1)
    expected = [np.searchsorted(s, u * s[-1], "right") for s, u in zip(sums, uniform, strict=True)]
    assert (got == expected).mean() > 0.99  # float32 sums differ at the edges
    assert (probs[np.arange(200), got] > 0).all()


def test_inverse_cdf_never_draws_the_impossible():
    """u close to 1 must not run past the last possible token into padding or zeros."""
    probs = jnp.zeros((1, 600)).at[0, 3].set(0.7).at[0, 300].set(0.3)
    almost_one = jnp.array([np.nextafter(np.float32(1), np.float32(0))])
    assert int(inverse_cdf(probs, almost_one)[0]) == 300
    assert int(inverse_cdf(probs, jnp.array([0.0]))[0]) == 3


def test_draw_frequencies_follow_the_temperature():
    logits = jnp.array([0.0, 1.0, 2.0])
    uniform = jnp.linspace(0, 1, 20_001)[:-1]
    for temperature in (0.5, 1.0, 2.0):
        token, logp, _ = draw(jnp.broadcast_to(logits, (20_000, 3)), uniform, Sampling(temperature))
        share = np.bincount(token, minlength=3) / 20_000
        np.testing.assert_allclose(share, jax.nn.softmax(logits / temperature), atol=1e-3)
        np.testing.assert_allclose(logp, jax.nn.log_softmax(logits)[token], rtol=1e-6)


def test_behaviour_by_hand():
    """Probabilities .1 .4 .2 .3. At temperature 1/2 they are squared: .01 .16 .04 .09 over .30. The
    top two of those are .16 and .09 over .25; a nucleus of .8 (.16 + .09 is .25 of .30, more than
    that) keeps the same two. A temperature of 2 takes roots."""
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    cases = [
        (Sampling(0.5), 0.0, 0, 0.01 / 0.30),
        (Sampling(0.5), 0.99, 3, 0.09 / 0.30),
        (Sampling(0.5, top_k=2), 0.0, 1, 0.16 / 0.25),
        (Sampling(0.5, top_p=0.8), 0.99, 3, 0.09 / 0.25),
        (Sampling(1.0, top_k=3), 0.5, 2, 0.2 / 0.9),
        (Sampling(1.0, top_p=0.3), 0.99, 1, 1.0),
        (Sampling(2.0), 0.0, 0, 0.1**0.5 / sum(p**0.5 for p in (0.1, 0.4, 0.2, 0.3))),
        (Sampling(0.0), 0.5, 1, 1.0),
    ]
    for sampling, uniform, expected_token, probability in cases:
        token, logp, behaviour = draw(logits, jnp.float32(uniform), sampling)
        assert int(token) == expected_token
        assert float(logp) == pytest.approx(float(logits[expected_token]), abs=1e-6)
        assert float(behaviour) == pytest.approx(np.log(probability), abs=1e-6)


@pytest.mark.parametrize("vocab", [5, 300, 1000])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(0.3), Sampling(1.7), Sampling(1.0, 4), Sampling(0.7, 4, 0.6), Sampling(1.3, 0, 0.9)],
)
def test_behaviour_equals_a_plain_reference(vocab: int, sampling: Sampling):
    rng = np.random.default_rng(vocab)
    logits = rng.normal(0, 3, (40, vocab)).astype(np.float32)
    token, logp, behaviour = draw(
        jnp.array(logits), jnp.array(rng.random(40, np.float32)), sampling
    )
    for row in range(40):
        plain = logits[row].astype(np.float64)
        ranks = np.argsort(-plain)[: sampling.top_k or vocab]
        tempered = np.exp((plain[ranks] - plain.max()) / sampling.temperature)
        tempered /= tempered.sum()
        before = np.cumsum(tempered) - tempered
        nucleus = dict(zip(ranks[before < sampling.top_p], tempered, strict=False))
        expected = np.log(nucleus[int(token[row])] / sum(nucleus.values()))
        np.testing.assert_allclose(behaviour[row], expected, atol=2e-5)
        total = np.log(np.exp(plain - plain.max()).sum()) + plain.max()
        np.testing.assert_allclose(logp[row], plain[int(token[row])] - total, atol=2e-5)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=7), Sampling(top_k=99)])
def test_behaviour_is_the_models_own_where_nothing_is_cut(sampling: Sampling):
    logits = jax.random.normal(jax.random.key(0), (50, 7))
    _, logp, behaviour = draw(logits, jnp.linspace(0, 0.99, 50), sampling)
    np.testing.assert_array_equal(logp, behaviour)


def test_the_number_drawn_is_that_of_the_inverse_transform_alone():
    """Log-probabilities beside it move no token: each equals the bare search in the weights."""
    logits, uniform = jax.random.normal(jax.random.key(1), (500, 90)), jnp.linspace(0, 0.999, 500)
    for sampling in (Sampling(), Sampling(0.3), Sampling(0.8, 5, 0.7)):
        kept = truncate(logits, sampling.top_k, sampling.top_p, sampling.temperature)
        weights = jnp.exp((kept - logits.max(-1, keepdims=True)) / sampling.temperature)
        token, _, _ = draw(logits, uniform, sampling)
        np.testing.assert_array_equal(token, inverse_cdf(weights, uniform))


WAYS = [
    Sampling(1.0),
    Sampling(0.0),
    Sampling(0.3),
    Sampling(1.0, 4),
    Sampling(0.7, 4, 0.6),
    Sampling(1.3, 0, 0.9),
    Sampling(0.0, 2, 0.5),
    Sampling(1.0, 1000, 1.0),
]


def by_row(ways: list[Sampling]) -> ByRow:
    temperature, top_k, top_p = zip(*((w.temperature, w.top_k, w.top_p) for w in ways), strict=True)
    return ByRow(np.float32(temperature), np.int32(top_k), np.float32(top_p))


@pytest.mark.parametrize("vocab", [5, 300])
def test_every_row_is_drawn_in_its_own_way(vocab: int):
    """As `draw` does all of them, in each of the ways in turn."""
    rng = np.random.default_rng(vocab)
    logits = jnp.asarray(rng.normal(0, 2, (len(WAYS), vocab)), jnp.float32)
    uniform = jnp.asarray(rng.random(len(WAYS)), jnp.float32)
    token, logp, behaviour = draw_by_row(logits, uniform, by_row(WAYS))
    for row, sampling in enumerate(WAYS):
        expected = draw(logits[row], uniform[row], sampling)
        assert int(token[row]) == int(expected[0])
        np.testing.assert_allclose(logp[row], expected[1], rtol=1e-6)
        np.testing.assert_allclose(behaviour[row], expected[2], rtol=1e-5, atol=1e-6)


def test_how_others_are_drawn_changes_no_bit_of_a_row():
    """A row of which nothing is cut is the same with and without one whose vocabulary is sorted."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(0, 2, (2, 300)), jnp.float32)
    uniform = jnp.asarray(rng.random(2), jnp.float32)
    drawing = jax.jit(draw_by_row)
    plain = drawing(logits, uniform, by_row([Sampling(0.7), Sampling(1.0)]))
    beside = drawing(logits, uniform, by_row([Sampling(0.7), Sampling(0.9, 3, 0.5)]))
    for alone, together in zip(plain, beside, strict=True):
        np.testing.assert_array_equal(alone[0], together[0])
