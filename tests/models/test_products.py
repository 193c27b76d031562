"""The product of rows and weights: the same bits for any number of rows, laid out either way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.models import products
from malt_jax.models.products import product


def operands(fan_in: int, fan_out: int, rows: int = 128) -> tuple[jax.Array, jax.Array]:
    shapes = (rows, fan_in), (fan_out, fan_in)
    x, matrix = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    return x, matrix


@pytest.mark.parametrize(("fan_in", "fan_out"), [(32, 48), (576, 192), (48, 576), (64, 104)])
def test_a_rows_bits_depend_on_no_other_row(fan_in: int, fan_out: int):
    """Rows that do not fill a tile, left unpadded, failed this with the weights on the left; so did
    an output of 104, whose last columns are no full tile of the plain product."""
    x, matrix = operands(fan_in, fan_out)
    whole = np.asarray(jax.jit(product)(x, matrix))
    for rows in (2, 8, 16, 17, 24, 33, 48, 64, 65, 96):
        few = np.asarray(jax.jit(product)(x[:rows], matrix))
        np.testing.assert_array_equal(few, whole[:rows], str(rows))
    np.testing.assert_allclose(whole, np.asarray(x) @ np.asarray(matrix).T, atol=1e-4)


def on_the_left(x: jax.Array, matrix: jax.Array) -> bool:
    fresh = jax.jit(partial(product))  # a new function: nothing traced before counts
    return "optimization_barrier" in fresh.lower(x, matrix).as_text()


def test_weights_stand_on_the_left_where_that_is_faster(monkeypatch: pytest.MonkeyPatch):
    """Few rows in float32 on one CPU, which gives both the same bits."""
    monkeypatch.setattr(products, "_keeps_bits", lambda: True)
    x, matrix = operands(64, 96, 24)
    assert on_the_left(x, matrix)
    assert on_the_left(x.reshape(24, 1, 64), matrix)
    assert not on_the_left(jnp.tile(x, (3, 1)), matrix)
    assert not on_the_left(x, matrix[:-1])
    assert not on_the_left(x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16))
    monkeypatch.setattr(products, "_keeps_bits", lambda: False)
    assert not on_the_left(x, matrix)


def test_a_cpu_of_other_tiles_is_found(monkeypatch: pytest.MonkeyPatch):
    """The check itself, against a product that rounds otherwise: it must see what it looks for."""
    assert products._keeps_bits.__wrapped__() == products._keeps_bits()
    monkeypatch.setattr(products, "_plain", lambda x, m: (x * 1.0000001) @ m.T)
    assert not products._keeps_bits.__wrapped__()


def test_its_gradients_are_the_plain_products():
    x, matrix = operands(64, 96, 24)

    def loss(product_of, x, matrix):
        return (product_of(x, matrix) ** 2).sum()

    for got, expected in zip(
        jax.grad(loss, (1, 2))(product, x, matrix),
        jax.grad(loss, (1, 2))(products._plain, x, matrix),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
