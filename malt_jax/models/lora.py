"""Low-rank adapters (arXiv 2106.09685), written by hand: plain pytrees that are arguments of
every compiled step.

y = x W + (alpha / r) (x A) B, with A ~ U(-1/sqrt(in), 1/sqrt(in)) as in PEFT and B = 0, so that a
fresh adapter changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from malt_jax.models.config import LlamaConfig

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


def merge(params: Params, adapter: Adapter, sign: float = 1.0) -> Params:
    """The base weights with the adapter added; the base is left as it is. The sum is taken in
    float32."""

    def merged(layer: Params, lora: dict[str, dict[str, Array]]) -> Params:
        out = dict(layer)
        for target, pair in lora.items():
            kernel = layer[target]["kernel"]
            delta = sign * adapter.scale * (pair["a"] @ pair["b"])
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
