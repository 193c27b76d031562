"""What the sampler draws: truncation, inverse transform, frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.sampler.draw import Sampling, draw, inverse_cdf, truncate


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
        token, logp = draw(jnp.broadcast_to(logits, (20_000, 3)), uniform, Sampling(temperature))
        share = np.bincount(token, minlength=3) / 20_000
        np.testing.assert_allclose(share, jax.nn.softmax(logits / temperature), atol=1e-3)
        np.testing.assert_allclose(logp, jax.nn.log_softmax(logits)[token], rtol=1e-6)
