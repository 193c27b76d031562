"""Kernels in panels: the bits of the plain product, whatever the number of rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.models import LlamaConfig, llama, panels
from malt_jax.models.config import Rope
from malt_jax.models.panels import Panels, product
from malt_jax.sampler import programs

ROWS = (2, 3, 8, 16, 24, 32, 48, 64, 100)


def operands(fan_in: int, fan_out: int) -> tuple[jax.Array, jax.Array, Any]:
    rng = np.random.default_rng(fan_in)
    x = jnp.asarray(rng.standard_normal((ROWS[-1], fan_in), np.float32))
    kernel = jnp.asarray(rng.standard_normal((fan_out, fan_in), np.float32))
    return x, kernel, jax.jit(product, compiler_options=programs.options("cpu"))


# 576 and 1536 are SmolLM2's. XLA cuts the sum over fewer than 1,024 by the number of rows, in ways
# that depend on both.
@pytest.mark.parametrize("fan_in", [64, 192, 320, 448, 576, 704, 768, 896, 960, 1024, 1536, 2048])
def test_a_rows_bits_are_those_of_the_plain_product_among_any_number(fan_in: int):
    x, kernel, jitted = operands(fan_in, 1088)
    cut = panels._cut(kernel)
    assert isinstance(cut, Panels)
    whole = np.asarray(jitted(x, kernel))
    for rows in ROWS:
        for weights in (kernel, cut):
            np.testing.assert_array_equal(jitted(x[:rows], weights), whole[:rows])


def test_wider_panels_are_noticed(monkeypatch: pytest.MonkeyPatch):
    """128 columns at a time, sums over 576 are cut in two for up to 32 rows, and no more beyond."""
    monkeypatch.setattr(panels, "WIDTH", 128)
    x, kernel, jitted = operands(576, 1152)
    cut = panels._cut(kernel)
    assert (np.asarray(jitted(x[:16], cut)) != np.asarray(jitted(x, kernel))[:16]).any()


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_in_panels_is_the_model(tied: bool):
    """Kernels of 64 columns and more are cut, and the head; the rest is what it was."""
    config = LlamaConfig(320, 256, 384, 1, 8, 2, 32, 128, 1e-5, Rope(1e4), tied=tied)
    params = llama.init(config, jax.random.key(0))
    other, cut = panels.in_panels(config, params)
    layer, before = cut["layers"][0], params["layers"][0]
    found = {name for name in layer if isinstance(layer[name].get("kernel"), Panels)}
    assert found == {"q", "o", "gate", "up", "down"}  # k and v: 64 x 256 are too few to gain
    assert [part.shape for part in layer["q"]["kernel"].parts] == [(2, 256, 64)] + 2 * [
        (1, 256, 64)
    ]
    assert isinstance(cut["head"], Panels)
    assert cut["embed"] is params["embed"]
    assert layer["k"]["kernel"] is before["k"]["kernel"]
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 320)
    mask = jnp.ones(tokens.shape, bool)
    hidden = llama.forward(config, params, tokens, mask)[0]
    same = llama.forward(other, cut, tokens, mask)[0]
    np.testing.assert_allclose(same, hidden, atol=1e-5)
    np.testing.assert_allclose(
        llama.unembed(other, cut, hidden), llama.unembed(config, params, hidden), atol=1e-5
    )


def test_the_head_of_a_large_vocabulary_is_cut_small():
    """Copies of the rows for hundreds of panels at once would not fit a cache."""
    cut = panels._cut(jnp.zeros((2048 * 64, 1)).at[:, 0].set(jnp.arange(2048 * 64)))
    assert isinstance(cut, Panels)
    assert {len(part) for part in cut.parts} == {32}
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(p) for p in cut.parts]), np.arange(2048 * 64)
    )
