"""Low-rank adapters (arXiv 2106.09685), written by hand: plain pytrees that are arguments of
every compiled step.

y = x W^T + (alpha / r) (x A) B, with A ~ U(-1/sqrt(in), 1/sqrt(in)) as in PEFT and B = 0, so that a
fresh adapter changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from malt_jax.models.config import LlamaConfig
from malt_jax.models.products import product

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
Params = dict[str, Any]


@partial(jax.tree_util.register_dataclass, data_fields=["layers"], meta_fields=["scale"])
@dataclass(frozen=True)
class Adapter:
    """One role's adapter. `layers[i][target]` holds `a: float32[in, r]` and `b: float32[r, out]`.

    `scale` is alpha / r, and static: gradients and optimisers see the matrices only. Adapters of
    equal shape and scale share every compiled program.
    """

    layers: dict[int, dict[str, dict[str, Array]]]
    scale: float


def sizes(config: LlamaConfig, target: str) -> tuple[int, int]:
    """The (in, out) sizes of a projection."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    table = {
        "q": (hidden, queries),
        "k": (hidden, keys),
        "v": (hidden, keys),
        "o": (queries, hidden),
        "gate": (hidden, inner),
        "up": (hidden, inner),
        "down": (inner, hidden),
    }
    if target not in table:
        raise ValueError(f"lora.targets: {target!r} is not one of {TARGETS}")
    return table[target]


def init(
    config: LlamaConfig, key: Array, *, rank: int, alpha: float, targets: Sequence[str] = TARGETS
) -> Adapter:
    """A fresh adapter. Raises ValueError for a rank below 1 or an unknown target."""
    if rank < 1:
        raise ValueError(f"lora.rank: {rank} is below 1")
    if not targets:
        raise ValueError("lora.targets: empty; name at least one projection to adapt")
    keys = iter(jax.random.split(key, config.num_layers * len(targets)))

    def pair(target: str) -> dict[str, Array]:
        fan_in, fan_out = sizes(config, target)
        bound = fan_in**-0.5
        a = jax.random.uniform(next(keys), (fan_in, rank), jnp.float32, -bound, bound)
        return {"a": a, "b": jnp.zeros((rank, fan_out), jnp.float32)}

    layers = {i: {target: pair(target) for target in targets} for i in range(config.num_layers)}
    return Adapter(layers, alpha / rank)


@jax.custom_vjp
def thin_product(x: Array, matrix: Array) -> Array:
    """x [..., in] times an adapter's matrix [in, out], of which one side is the rank.

    Its gradients are written out: those that autodiff gives make XLA's CPU compiler copy the wide
    operand transposed, which takes longer than all products of the adapter.
    """
    return x @ matrix


def _thin_forward(x: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ matrix, (x, matrix)


def _thin_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, matrix = kept
    rows, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        change = jnp.einsum("ti,to->io", rows, grads)
    else:
        change = jnp.einsum("to,ti->oi", grads, rows).T
    return jnp.einsum("to,io->ti", grads, matrix).reshape(x.shape), change


thin_product.defvjp(_thin_forward, _thin_backward)


def stacked_product(x: Array, pair: dict[str, Array], gates: Array) -> Array:
    """The part [..., out] of a stacked adapter, for x [..., in] and gates [..., R]."""
    low = product(x, pair["low"].astype(x.dtype))
    return product(gates * low, pair["high"].astype(x.dtype))


def stack(adapters: Sequence[Adapter | None]) -> Adapter | None:
    """Several adapters as one, side by side along the rank; None if none of them adapts anything.

    y + (gates (x A)) B with `gates` of a row (below) is then y under that row's adapter alone: the
    other adapters' parts are multiplied by zero. The matrices are stored [out, in] as the base's
    are (`llama.Linear`), so that a row's bits do not depend on its company; training, which would
    be slower for it, keeps them the other way. `layers[i][target]` holds `low: float32[R, in]` and
    `high: float32[out, R]`, R the sum of the ranks.
    """
    present = [adapter for adapter in adapters if adapter is not None]
    if not present:
        return None

    def side_by_side(layer: int, target: str) -> dict[str, Array]:
        pairs = [a.layers.get(layer, {}).get(target) for a in present]
        fan_in, fan_out = next((p["a"].shape[0], p["b"].shape[1]) for p in pairs if p)
        parts = [
            (jnp.zeros((fan_in, rank(a))), jnp.zeros((rank(a), fan_out)))
            if pair is None
            else (pair["a"], pair["b"])
            for pair, a in zip(pairs, present, strict=True)
        ]
        lows, highs = zip(*parts, strict=True)
        return {"low": jnp.concatenate(lows, 1).T, "high": jnp.concatenate(highs, 0).T}

    places = sorted({(i, t) for a in present for i, layer in a.layers.items() for t in layer})
    layers: dict[int, dict[str, dict[str, Array]]] = {i: {} for i, _ in places}
    for i, target in places:
        layers[i][target] = side_by_side(i, target)
    return Adapter(layers, 1.0)


def gates(adapters: Sequence[Adapter | None]) -> np.ndarray:
    """What multiplies the stacked low-rank parts of a row under each adapter: float32[A, r], an
    adapter's scale at its own ranks and zero elsewhere."""
    ranks = [0 if adapter is None else rank(adapter) for adapter in adapters]
    table = np.zeros((len(adapters), sum(ranks)), np.float32)
    for i, adapter in enumerate(adapters):
        if adapter is not None:
            table[i, sum(ranks[:i]) : sum(ranks[: i + 1])] = adapter.scale
    return table


def rank(adapter: Adapter) -> int:
    """The rank r of an adapter."""
    layer = next(iter(adapter.layers.values()))
    return next(iter(layer.values()))["a"].shape[1]


def merge(params: Params, adapter: Adapter, sign: float = 1.0) -> Params:
    """The base weights with the adapter added; the base is left as it is. The sum is taken in
    float32."""

    def merged(layer: Params, lora: dict[str, dict[str, Array]]) -> Params:
        out = dict(layer)
        for target, pair in lora.items():
            kernel = layer[target]["kernel"]
            delta = sign * adapter.scale * (pair["a"] @ pair["b"]).T
            out[target] = {
                **layer[target],
                "kernel": (kernel.astype(jnp.float32) + delta).astype(kernel.dtype),
            }
        return out

    layers = {i: merged(layer, adapter.layers.get(i, {})) for i, layer in params["layers"].items()}
    return {**params, "layers": layers}


def unmerge(params: Params, adapter: Adapter) -> Params:
    """Takes a merged adapter out again (up to float rounding)."""
    return merge(params, adapter, sign=-1.0)
