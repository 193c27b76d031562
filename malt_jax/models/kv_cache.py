"""Pools of pages of a KV cache: their layout on the mesh, what a page costs, copies of pages.

A shard is what one group of devices (data x fsdp) holds. Letters in shapes: E shards, W pages of a
pool, T tokens of a page, n moves; K, H as in `models.llama`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from malt_jax.models.config import LlamaConfig
from malt_jax.models.llama import KV
from malt_jax.runtime import mesh as meshes

Pool = list[KV]
"""Per layer keys [E, W, K, H, T] (transposed, as queries read them) and values [E, W, K, T, H]."""
POOL_AXES = ("batch", None, "heads", None, None)
"""Their logical axes."""


class Moves(NamedTuple):
    """Pages to copy; numpy's arrays or jax's. None of them is both copied and written over."""

    source: Any  # int32[E, n]
    to: Any  # int32[E, n]
    many: Any  # int32[E], how many of the n there are


def empty_pool(config: LlamaConfig, mesh: Mesh, pages: int, size: int, dtype: Any) -> Pool:
    """A pool of `pages` pages of `size` tokens a shard, placed on the mesh."""
    keys, values = pool_shapes(config, mesh, pages, size)

    def zeros(shape: tuple[int, ...]) -> Array:
        return jnp.zeros(shape, dtype, device=meshes.sharding(mesh, shape, POOL_AXES))

    return [(zeros(keys), zeros(values)) for _ in range(config.num_layers)]


def pool_shapes(
    config: LlamaConfig, mesh: Mesh, pages: int, size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a layer's keys and values."""
    shards, heads, head = shards_of(mesh), config.num_kv_heads, config.head_dim
    return (shards, pages, heads, head, size), (shards, pages, heads, size, head)


def page_spec(config: LlamaConfig, mesh: Mesh) -> PartitionSpec:
    """How a layer's keys, and its values, are split over the mesh."""
    keys, _ = pool_shapes(config, mesh, 1, 1)
    return meshes.sharding(mesh, keys, POOL_AXES).spec


def shards_of(mesh: Mesh) -> int:
    """How many shards rows and pages are split into."""
    return int(mesh.shape["data"] * mesh.shape["fsdp"])


def page_bytes(config: LlamaConfig, mesh: Mesh, size: int, dtype: Any) -> int:
    """Bytes that one page of all layers takes on each device."""
    shapes = pool_shapes(config, mesh, 1, size)
    parts = (meshes.sharding(mesh, shape, POOL_AXES).shard_shape(shape) for shape in shapes)
    return config.num_layers * sum(map(math.prod, parts)) * int(dtype.itemsize)


def copy(config: LlamaConfig, mesh: Mesh, source: Pool | None, target: Pool, moves: Moves) -> Pool:
    """`target` with the pages that `moves` names, taken from `source` or, if None, from itself."""
    pages = page_spec(config, mesh)
    batch = PartitionSpec(pages[0])

    def moved(source: Array | None, target: Array, moves: Moves) -> Array:
        old, new, many = (x[0] for x in moves)

        # One after another: as a gather and a scatter XLA's CPU backend goes element by element.
        def copied(i: Array, kept: Array) -> Array:
            page = (kept if source is None else source[0])[old[i]]
            return jax.lax.dynamic_update_index_in_dim(kept, page, new[i], 0)

        return jax.lax.fori_loop(0, many, copied, target[0])[None]

    def whole(source: Pool | None, target: Pool, moves: Moves) -> Pool:
        if source is None:
            return jax.tree.map(lambda t: moved(None, t, moves), target)
        return jax.tree.map(lambda s, t: moved(s, t, moves), source, target)

    mapped = jax.shard_map(
        whole, mesh=mesh, in_specs=(pages, pages, batch), out_specs=pages, check_vma=False
    )
    return mapped(source, target, moves)


def resized(layer: KV, ids_EW: Array) -> KV:
    """One layer of a pool whose page i is page ids[i] of the old one; ids past its end give any."""

    def taken(x: Array) -> Array:
        return jax.vmap(lambda pages, ids: jnp.take(pages, ids, 0, mode="clip"))(x, ids_EW)

    return jax.tree.map(taken, layer)
