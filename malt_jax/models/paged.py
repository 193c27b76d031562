"""Passes of the model over a KV cache in pages: prefill a tile of prompt tokens at a time, decode
a token a row.

A shard is what one group of devices (data x fsdp) holds: its own rows and its own pages, so that
attention never crosses devices. Page ids equal to the number of pages mean "no page": what is
written there is dropped, what is read there does not count.

Letters in shapes: E shards, R rows and B tiles of a shard, Q tokens of a tile, J pages of a row or
tile, W pages of a pool, T tokens of a page, C readers of a page; D, N, K, H as in `models.llama`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from malt_jax.models import llama
from malt_jax.models.attention import (
    Partial,
    PartialAttention,
    Write,
    join,
    normalised,
    nothing,
    write_key,
    write_value,
)
from malt_jax.models.config import LlamaConfig
from malt_jax.models.kernels import MASKED
from malt_jax.models.kv_cache import Pool, page_spec
from malt_jax.models.llama import KV
from malt_jax.models.lora import Adapter, Params


class Reads(NamedTuple):
    """Who reads which page of a pool; numpy's arrays or jax's."""

    readers: Any  # int32[E, W, C], rows that read a page
    seen: Any  # int32[E, W, C], how many of its tokens each of them sees
    table: Any  # int32[E, R, J], pages of a row in order
    member: Any  # int32[E, R, J], which reader of that page the row is
    depth: Any  # int32[], the most pages any row has


class Rows(NamedTuple):
    """Where the rows of a decoding step stand. Prompts' pages are shared by the rows of a group;
    what a row drew lies in pages of its own, in another pool."""

    positions: Array  # int32[E, R], of the token fed
    page: Array  # int32[E, R], the row's own page to which its keys and values go
    offset: Array  # int32[E, R], the place in that page
    shared: Reads
    decoded: Reads


class Tiles(NamedTuple):
    """Consecutive prompt tokens to prefill; numpy's arrays or jax's."""

    tokens: Any  # int32[E, B, Q]
    start: Any  # int32[E, B], position of a tile's first token
    length: Any  # int32[E, B], tokens that count, 0 for an empty tile
    table: Any  # int32[E, B, J], pages of its sequence, its own included
    depth: Any  # int32[], the most pages any tile has


def decode(
    config: LlamaConfig,
    mesh: Mesh,
    op: PartialAttention,
    write: tuple[Write, Write],
    params: Params,
    tokens_ER: Array,
    rows: Rows,
    shared: Pool,
    decoded: Pool,
    adapter: Adapter | None,
    gates_ERr: Array | None,
) -> tuple[Array, Pool]:
    """One token further for every row: hidden states [E, R, D] and the rows' own pool with the
    token's keys and values in it.

    Every page is read once, in place, for all of its readers. The pools are apart because pages of
    one reader make products a third as large, and because their products run side by side on a CPU.
    """

    def local(q: Array, k: Array, v: Array, pools: tuple[KV, KV], rows: Rows) -> tuple[Array, KV]:
        shared, decoded = pools
        keys, values = (
            add(old, new, rows.page, rows.offset)
            for add, old, new in zip(write, decoded, (k, v), strict=True)
        )
        n, (heads, size) = q.shape[0], k.shape[1:]
        q = q.reshape(n, heads, -1, size)
        joined = nothing(q.shape)
        for kv, reads in ((shared, rows.shared), ((keys, values), rows.decoded)):
            joined = _over_pages(_in_place(op, q, kv, reads), reads.depth, joined)
        return normalised(joined).reshape(n, -1, size).astype(q.dtype), (keys, values)

    shards, n = tokens_ER.shape
    attends = [_sharded(config, mesh, local, kv, rows) for kv in zip(shared, decoded, strict=True)]
    gates = None if gates_ERr is None else gates_ERr.reshape(shards * n, 1, -1)
    tokens, positions = tokens_ER.reshape(-1, 1), rows.positions.reshape(-1, 1)
    hidden, decoded = llama.run(config, params, tokens, positions, attends, adapter, gates)
    return hidden.reshape(shards, n, -1), decoded


def _in_place(
    op: PartialAttention, q_RKGH: Array, kv: KV, reads: Reads
) -> Callable[[Array], Partial]:
    """All pages of a pool for all their readers; then what row r's j-th page gave, by j."""
    (pages, readers), (heads, group, size) = reads.readers.shape, q_RKGH.shape[1:]
    # A branch's operands are computed before it: XLA would else rotate a query anew, sines and
    # all, for every page that reads it.
    grouped = jax.lax.cond(
        reads.depth > 0,
        lambda q: q[reads.readers],  # [W, C, K, G, H]
        lambda q: jnp.zeros((pages, readers, *q.shape[1:]), q.dtype),
        q_RKGH,
    )
    grouped = grouped.transpose(0, 2, 1, 3, 4).reshape(pages, heads, -1, size)
    parts = op(grouped, *kv, jnp.repeat(reads.seen, group, 1))
    # [W, K, C * G, ...] -> [W, K, C, G, ...]
    split = Partial(*(x.reshape(pages, heads, readers, group, *x.shape[3:]) for x in parts))

    def page(j: Array) -> Partial:
        index = jnp.minimum(reads.table[:, j], pages - 1)
        absent = (reads.table[:, j] >= pages)[:, None, None]
        read = Partial(*(x[index, :, reads.member[:, j]] for x in split))  # [R, K, G, ...]
        return _blank(read, absent)

    return page


def prefill(
    config: LlamaConfig,
    mesh: Mesh,
    op: PartialAttention,
    params: Params,
    tiles: Tiles,
    pool: Pool,
    adapter: Adapter | None,
    gates_EBr: Array | None,
) -> Pool:
    """The pool with the tiles' keys and values in it. A tile may follow on another one of the same
    call."""

    def local(q: Array, k: Array, v: Array, kv: KV, tiles: Tiles) -> tuple[Array, KV]:
        (keys, values), (n, length) = kv, tiles.tokens.shape
        heads, size, pages, page_size = k.shape[1], k.shape[2], keys.shape[0], keys.shape[-1]
        inside = jnp.arange(length)
        positions = tiles.start[:, None] + inside
        page = jnp.take_along_axis(tiles.table, positions // page_size, 1, mode="clip")
        page = jnp.where(inside < tiles.length[:, None], page, pages).reshape(-1)
        offset = positions.reshape(-1) % page_size
        keys, values = write_key(keys, k, page, offset), write_value(values, v, page, offset)
        group = q.shape[1] // heads
        q = q.reshape(n, length, heads, group, size).transpose(0, 2, 1, 3, 4)
        q = q.reshape(n, heads, -1, size)

        def part(j: Array) -> Partial:
            index = jnp.minimum(tiles.table[:, j], pages - 1)
            seen = jnp.clip(positions + 1 - j * page_size, 0, page_size)
            seen = jnp.where(tiles.table[:, j, None] < pages, seen, 0)
            return op(q, keys[index], values[index], jnp.repeat(seen, group, 1))

        merged = normalised(_over_pages(part, tiles.depth, nothing(q.shape)))
        out = merged.reshape(n, heads, length, group, size).transpose(0, 2, 1, 3, 4)
        return out.reshape(n * length, -1, size).astype(q.dtype), (keys, values)

    shards, n, length = tiles.tokens.shape
    attends = [_sharded(config, mesh, local, kv, tiles) for kv in pool]
    gates = None if gates_EBr is None else gates_EBr.reshape(shards * n, 1, -1)
    positions = (tiles.start[..., None] + jnp.arange(length)).reshape(-1, length)
    tokens = tiles.tokens.reshape(-1, length)
    return llama.run(config, params, tokens, positions, attends, adapter, gates)[1]


def _sharded(
    config: LlamaConfig, mesh: Mesh, local: Callable[..., Any], pools: Any, plan: Rows | Tiles
) -> llama.Attend:
    """`local` on every shard and its share of the heads: no device asks another for anything.

    `pools` is one layer's `KV`, or several; `local` keeps one.
    """
    paged = page_spec(config, mesh)
    batch, _, heads, *_ = paged
    flat = PartitionSpec(batch, heads, None)
    plans = jax.tree.map(lambda x: PartitionSpec(batch) if x.ndim else PartitionSpec(), plan)

    def on_shard(q: Array, k: Array, v: Array, pools: Any, plan: Any) -> tuple[Array, KV]:
        plan = jax.tree.map(lambda x: x[0] if x.ndim else x, plan)
        out, (keys, values) = local(q, k, v, jax.tree.map(lambda x: x[0], pools), plan)
        return out, (keys[None], values[None])

    mapped = jax.shard_map(
        on_shard,
        mesh=mesh,
        in_specs=(flat, flat, flat, jax.tree.map(lambda _: paged, pools), plans),
        out_specs=(flat, (paged, paged)),
        check_vma=False,
    )

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, KV]:
        batch, length, *_ = q.shape
        q, k, v = (x.reshape(batch * length, *x.shape[2:]) for x in (q, k, v))
        out, kept = mapped(q * config.head_dim**-0.5, k, v, pools, plan)
        return out.reshape(batch, length, *out.shape[1:]), kept

    return attend


def _over_pages(part: Callable[[Array], Partial], depth: Array, joined: Partial) -> Partial:
    """`joined` with `depth` pages, one after another in order."""
    return jax.lax.fori_loop(0, depth, lambda j, so_far: join(so_far, part(j)), joined)


def _blank(part: Partial, absent: Array) -> Partial:
    return Partial(
        jnp.where(absent[..., None], 0.0, part.out),
        jnp.where(absent, MASKED, part.top),
        jnp.where(absent, 0.0, part.total),
    )
