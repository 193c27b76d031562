"""The attention of training against a dense one with the mask written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.models.training import _first_tiles, branch_attention

ROWS, LENGTH, HEADS, KV, SIZE = 2, 45, 4, 2, 8
RNG = np.random.default_rng(0)
Q, K, V, GRAD = (
    jnp.asarray(RNG.normal(size=(ROWS, LENGTH, heads, SIZE)), jnp.float32)
    for heads in (HEADS, KV, KV, HEADS)
)
# Two examples and padding in the first row, one long example with a short start in the second.
EXAMPLE = np.stack([np.repeat([0, 1, -1], [20, 15, 10]), np.repeat([0, 1], [3, 42])])
BRANCH = np.stack(
    [np.repeat([0, 1, 2, 0, 1, 0], [7, 6, 7, 12, 3, 10]), np.repeat([0, 1], [23, 22])]
)


def dense(q, k, v):
    """Every score at once; `sees[t][s]` says in words which keys count."""
    sees = np.zeros((ROWS, LENGTH, LENGTH), bool)
    for r, t, s in np.ndindex(sees.shape):
        seen = EXAMPLE[r, s] == EXAMPLE[r, t] and s <= t
        sees[r, t, s] = seen and BRANCH[r, s] in (0, BRANCH[r, t])
    k, v = (jnp.repeat(x, HEADS // KV, axis=2) for x in (k, v))
    scores = jnp.einsum("rtnh,rsnh->rnts", q, k) * SIZE**-0.5
    weights = jax.nn.softmax(jnp.where(sees[:, None], scores, -jnp.inf), -1)
    return jnp.einsum("rnts,rsnh->rtnh", weights, v)


@pytest.mark.parametrize("tile", [4, 16, 64])
def test_values_and_gradients_equal_the_dense_ones(tile):
    """Tiles that divide no example, and one that is larger than the row."""
    attend = branch_attention(jnp.asarray(EXAMPLE), jnp.asarray(BRANCH), tile)

    def tiled(q, k, v):
        return attend(q, k, v)[0]

    real = jnp.asarray(EXAMPLE >= 0)[..., None, None]
    got, got_pull = jax.vjp(jax.jit(tiled), Q, K, V)
    want, want_pull = jax.vjp(jax.jit(dense), Q, K, V)
    np.testing.assert_allclose(got * real, want * real, atol=2e-6)
    for ours, other in zip(got_pull(GRAD * real), want_pull(GRAD * real), strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-5)


def test_bfloat16_keeps_its_type_and_sums_in_float32():
    attend = branch_attention(jnp.asarray(EXAMPLE), jnp.asarray(BRANCH), 16)
    narrow = [x.astype(jnp.bfloat16) for x in (Q, K, V)]
    out, pull = jax.vjp(jax.jit(lambda q, k, v: attend(q, k, v)[0]), *narrow)
    assert {x.dtype for x in (out, *pull(out))} == {jnp.dtype(jnp.bfloat16)}
    want = dense(*(x.astype(jnp.float32) for x in narrow))
    difference = np.abs(out.astype(jnp.float32) - want)
    assert difference[EXAMPLE >= 0].max() < 0.03


def test_tiles_before_the_example_are_not_met():
    """Planted NaNs: a key of an earlier tile of another example would reach the result even under
    the mask (0 times NaN)."""
    example = jnp.repeat(jnp.arange(2), jnp.array([32, 13]))[None]
    attend = branch_attention(example, jnp.zeros_like(example), 16)
    bad = V[:1].at[:, :32].set(jnp.nan)
    out, _ = jax.jit(attend)(Q[:1], K[:1], bad)
    assert np.isnan(out[:, :32]).all()
    assert np.isfinite(out[:, 32:]).all()


def test_an_empty_row_costs_the_others_nothing():
    """The rows of a device share their tiles: one of padding alone asked for all of them."""
    example = jnp.stack([jnp.repeat(jnp.arange(4), 16), jnp.full(64, -1)])
    assert _first_tiles(example, 16).tolist() == [0, 1, 2, 3]
    assert _first_tiles(jnp.repeat(jnp.arange(2), 32)[None], 16).tolist() == [0, 0, 2, 2]
