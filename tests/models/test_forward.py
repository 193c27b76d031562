"""The forward pass looks back only, and what it recomputes changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.models import LlamaConfig, llama
from malt_jax.models.config import Rope

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    context=64,
    norm_eps=1e-5,
    rope=Rope(100.0, "llama3", 4.0, 1.0, 4.0, 16),
)


forward = jax.jit(llama.forward, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    scaled = jax.tree.map(lambda x: 10 * x, llama.init(CONFIG, jax.random.key(0)))
    return scaled | {"norm": {"scale": jnp.ones(24)}}


def test_the_hidden_state_at_t_has_no_gradient_from_later_tokens(params):
    """All tokens differ, so a row of the embedding table's gradient is one position's influence."""
    tokens = jnp.arange(10)[None] + 3
    weights = jax.random.normal(jax.random.key(2), (CONFIG.hidden_size,))

    def hidden_at(embed, t):
        out, _ = forward(CONFIG, params | {"embed": embed}, tokens, tokens > 0)
        return out[0, t] @ weights

    def influence(t: int) -> np.ndarray:
        return np.abs(np.asarray(jax.grad(hidden_at)(params["embed"], t))).sum(-1)[3:13]

    for t in (0, 4, 9):
        reach = influence(t)
        assert (reach[: t + 1] > 0).all()
        assert (reach[t + 1 :] == 0).all()


def test_padded_tokens_have_no_gradient(params):
    tokens = jnp.arange(8)[None] + 3
    mask = jnp.array([[0, 0, 1, 1, 1, 1, 0, 0]], bool)

    def total(embed):
        out, _ = forward(CONFIG, params | {"embed": embed}, tokens, mask)
        return jnp.where(mask[..., None], out, 0.0).sum()

    reach = np.abs(np.asarray(jax.grad(total)(params["embed"]))).sum(-1)[3:11]
    np.testing.assert_array_equal(reach > 0, mask[0])
