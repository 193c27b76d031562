"""The model as training runs it: packed rows whose examples may branch, attention that keeps no
scores, and a choice of what the backward pass finds kept.

Letters in shapes: R rows, L tokens of a row, N query and K key/value heads, G = N / K, H head size;
a tile is a stretch of B tokens.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name, checkpoint_policies

from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig
from malt_jax.models.kernels import MASKED
from malt_jax.models.llama import KV, Attend
from malt_jax.models.lora import Adapter, Params
from malt_jax.runtime.mesh import platform

Remat = Literal["keep_all", "keep_products", "keep_inputs"]
"""What a block keeps for its backward pass: every intermediate, the outputs of its matrix products,
or its input alone (the whole block is then computed twice)."""

_KEPT: dict[Remat, Callable[..., Any] | None] = {
    "keep_all": None,
    "keep_products": checkpoint_policies.save_only_these_names(llama.PRODUCT),
    "keep_inputs": checkpoint_policies.nothing_saveable,
}
_slice = jax.lax.dynamic_slice_in_dim
_update = jax.lax.dynamic_update_slice_in_dim


def hidden_states(
    config: LlamaConfig,
    params: Params,
    adapter: Adapter | None,
    tokens_RL: Array,
    positions_RL: Array,
    example_RL: Array,
    branch_RL: Array,
    *,
    remat: Remat = "keep_all",
) -> Array:
    """Normed hidden states [R, L, D] of packed rows (see `batches.Batch` for the arrays). What a
    place of padding holds says nothing."""
    attends = [branch_attention(example_RL, branch_RL)] * config.num_layers
    policy = _KEPT[remat]
    return llama.run(
        config, params, tokens_RL, positions_RL, attends, adapter, remat_policy=policy
    )[0]


def branch_attention(example_RL: Array, branch_RL: Array, tile: int = 0) -> Attend:
    """Attention of packed rows to themselves: a token sees those before it, and itself, that are of
    its own example and there of branch 0 (the prompt) or of its own branch.

    Examples are contiguous in a row. Only tiles from the start of a query's example to the query
    are met, forwards and backwards, and no score outlives its tile: the backward pass computes them
    again from the log-sum-exp of each query (arXiv 2205.14135). `tile` 0 takes the platform's.
    """
    size = tile or (64 if platform(example_RL) == "cpu" else 256)

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, KV]:
        rows, length, heads, head = q.shape
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        grouped = q.reshape(rows, length, k.shape[1], -1, head).transpose(0, 2, 3, 1, 4)
        out = tiled(length, grouped * head**-0.5, k, v)
        return out.transpose(0, 3, 1, 2, 4).reshape(rows, length, heads, head), (k, v)

    def tiled(length: int, q: Array, k: Array, v: Array) -> Array:
        more = -length % size

        def padded(x: Array, axis: int, value: int = 0) -> Array:
            widths = [(0, more if i == axis else 0) for i in range(x.ndim)]
            return jnp.pad(x, widths, constant_values=value) if more else x

        example, branch = padded(example_RL, 1, -1), padded(branch_RL, 1)
        places = (example, branch, _first_tiles(example, size))
        out = _attention(padded(q, 3), padded(k, 2), padded(v, 2), places, size)
        return out[:, :, :, :length]

    return attend


Places = tuple[Array, Array, Array]
"""Example and branch int32[R, L] of every token, and the first tile each query tile looks at."""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(q: Array, k: Array, v: Array, places: Places, size: int) -> Array:
    """q [R, K, G, L, H], already scaled, k and v [R, K, L, H] -> [R, K, G, L, H]."""
    return _forward(q, k, v, places, size)[0]


def _forward(q: Array, k: Array, v: Array, places: Places, size: int) -> tuple[Array, Any]:
    example, branch, first = places

    def query_tile(_: None, i: Array) -> tuple[None, tuple[Array, Array]]:
        queries = _queries(q, i, size)

        def key_tile(j: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            out, top, total = sums
            seen = _seen(example, branch, i, j, size)
            scores = _scores(queries, _slice(k, j * size, size, 2), seen)
            higher = jnp.maximum(top, scores.max(-1))
            weights, shrink = jnp.exp(scores - higher[..., None]), jnp.exp(top - higher)
            values = _product("rkms,rksh->rkmh", weights, _slice(v, j * size, size, 2))
            return out * shrink[..., None] + values, higher, total * shrink + weights.sum(-1)

        shape = queries.shape[:3]
        nothing = (
            jnp.zeros(queries.shape, jnp.float32),
            jnp.full(shape, MASKED / 2),  # above `MASKED`: what is masked weighs nothing
            jnp.zeros(shape, jnp.float32),
        )
        out, top, total = jax.lax.fori_loop(first[i], i + 1, key_tile, nothing)
        return None, ((out / total[..., None]).astype(q.dtype), top + jnp.log(total))

    _, (out, lse) = jax.lax.scan(query_tile, None, jnp.arange(len(first)))
    out, lse = (checkpoint_name(x, llama.PRODUCT) for x in (_row(out, q.shape), lse))
    return out, (q, k, v, places, out, lse)


def _backward(size: int, kept: Any, grad: Array) -> tuple[Array | None, ...]:
    q, k, v, (example, branch, first), out, lse = kept
    inner = jnp.sum(out.astype(jnp.float32) * grad, -1, keepdims=True)

    def query_tile(sums: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        queries, grads, inners = (_queries(x, i, size) for x in (q, grad, inner))

        def key_tile(j: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            dq, dk, dv = sums
            keys, values = _slice(k, j * size, size, 2), _slice(v, j * size, size, 2)
            seen = _seen(example, branch, i, j, size)
            weights = jnp.exp(_scores(queries, keys, seen) - lse[i][..., None])
            dscores = weights * (_product("rkmh,rksh->rkms", grads, values) - inners)
            dv = _add(dv, _product("rkms,rkmh->rksh", weights, grads), j * size)
            dk = _add(dk, _product("rkms,rkmh->rksh", dscores, queries), j * size)
            return dq + _product("rkms,rksh->rkmh", dscores, keys), dk, dv

        dq = jnp.zeros(queries.shape, jnp.float32)
        dq, dk, dv = jax.lax.fori_loop(first[i], i + 1, key_tile, (dq, *sums))
        return (dk, dv), dq.astype(q.dtype)

    zeros = jnp.zeros(k.shape, jnp.float32)
    (dk, dv), dq = jax.lax.scan(query_tile, (zeros, zeros), jnp.arange(len(first)))
    return _row(dq, q.shape), dk.astype(k.dtype), dv.astype(v.dtype), None


_attention.defvjp(_forward, _backward)


def _first_tiles(example: Array, size: int) -> Array:
    """The first tile that any row's query tile looks at: int32[L / B]. It is the one in which the
    example of the query tile's first token starts; padding looks no further than its own tile."""
    heads = example[:, None, ::size]
    starts = jnp.argmax(example[:, :, None] == heads, axis=1)
    tiles = jnp.arange(0, example.shape[1], size)
    return jnp.min(jnp.where(heads[:, 0] < 0, tiles, starts), axis=0) // size


def _queries(x: Array, i: Array, size: int) -> Array:
    """Tile `i` of [R, K, G, L, H] as [R, K, G * B, H]."""
    rows, heads, groups, _, head = x.shape
    return _slice(x, i * size, size, 3).reshape(rows, heads, groups * size, head)


def _row(tiles: Array, shape: tuple[int, ...]) -> Array:
    """[tiles, R, K, G * B, H] as [R, K, G, L, H]: `_queries` undone."""
    rows, heads, groups, length, head = shape
    tiles = tiles.reshape(len(tiles), rows, heads, groups, length // len(tiles), head)
    return jnp.moveaxis(tiles, 0, 3).reshape(shape)


def _seen(example: Array, branch: Array, i: Array, j: Array, size: int) -> Array:
    """Which keys of tile `j` the queries of tile `i` see: bool[R, 1, 1, B, B]."""
    ours, others = (_slice(example, at * size, size, 1) for at in (i, j))
    mine, theirs = (_slice(branch, at * size, size, 1) for at in (i, j))
    same = ours[:, :, None] == others[:, None]
    open_ = (theirs[:, None] == 0) | (theirs[:, None] == mine[:, :, None])
    place = jnp.arange(size)
    before = (j - i) * size + place <= place[:, None]
    return (same & open_ & before)[:, None, None]


def _scores(queries: Array, keys: Array, seen: Array) -> Array:
    rows, heads, many, _ = queries.shape
    scores = _product("rkmh,rksh->rkms", queries, keys)
    split = scores.reshape(rows, heads, -1, *seen.shape[-2:])
    return jnp.where(seen, split, MASKED).reshape(rows, heads, many, -1)


def _product(equation: str, x: Array, y: Array) -> Array:
    """Operands in the narrower type of the two, the sum in float32."""
    dtype = jnp.bfloat16 if jnp.bfloat16 in (x.dtype, y.dtype) else jnp.float32
    return jnp.einsum(
        equation, x.astype(dtype), y.astype(dtype), preferred_element_type=jnp.float32
    )


def _add(sums: Array, part: Array, start: Array) -> Array:
    """`part` added to the places of `sums` [R, K, L, H] that begin at `start`."""
    return _update(sums, _slice(sums, start, part.shape[2], 2) + part, start, 2)
