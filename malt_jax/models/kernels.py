"""`attention.partial_attention` in Pallas for TPU (Mosaic) and GPU (Triton).

Both take and give what that function does and pass over a page that no query sees: the portable
one reads and multiplies all of the pool, however little of it is in use. `interpret` runs them on
any platform. Products of float32 have the precision `jax_default_matmul_precision` says.

Letters in shapes as in `models.attention`; P pages of a block.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as plgpu

MASKED = -1e30
"""The top of a query that sees no key. Finite: -inf - -inf would be NaN."""

_BLOCK_BYTES = 2 << 20  # of all operands of a grid step: its DMA outlasts the step's fixed cost
_LANES, _TILE_BYTES = 128, 4096
_TPU_QUERIES = 128  # of a grid step: however many a page has, VMEM and compile time are bounded
_GPU_QUERIES = 64  # of a program
_WARPS = {2: 4, 4: 8}  # by bytes of a number: a page of 128 by 128 then stays in registers

Triple = tuple[Array, Array, Array]


def tpu(q: Array, k: Array, v: Array, seen: Array, *, interpret: Any = False) -> Triple:
    """The three arrays of `attention.Partial`, by blocks of pages with all their heads.

    Where H fills the 128 lanes, k and v are read where they lie. The default layout of a smaller v
    has the tokens last, so that is how the kernel then takes it: the swap below moves nothing.
    """
    (pages, heads, queries, size), tokens = q.shape, k.shape[-1]
    swapped = size % _LANES != 0
    rows = min(queries, _TPU_QUERIES)
    of_query, of_key = (heads, rows, size), (heads, size, tokens)
    of_value = of_key if swapped else (heads, tokens, size)
    page_bytes = sum(_padded_bytes(shape, q.dtype) for shape in (of_query, of_key, of_value))
    page_bytes += _padded_bytes(of_query, jnp.float32)
    block = max(1, min(pages, _BLOCK_BYTES // page_bytes))
    steps = pl.cdiv(pages, block)
    live = jnp.pad((seen > 0).any(1), (0, steps * block - pages))
    any_live = live.reshape(steps, block).any(1)
    # A step of dead pages names the last live block again, and the pipeline does not fetch twice.
    fetch = jax.lax.cummax(jnp.where(any_live, jnp.arange(steps), 0))

    def spec(shape: tuple[int, ...], index: Callable[..., tuple[Any, ...]]) -> pl.BlockSpec:
        return pl.BlockSpec((block, *shape), lambda i, m, live, fetch: index(i, fetch[i], m))

    return pl.pallas_call(
        partial(_tpu_kernel, swapped),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(steps, pl.cdiv(queries, rows)),
            in_specs=[
                spec(of_query, lambda i, j, m: (j, 0, m, 0)),
                spec(of_key, lambda i, j, m: (j, 0, 0, 0)),
                spec(of_value, lambda i, j, m: (j, 0, 0, 0)),
                spec((1, rows), lambda i, j, m: (j, 0, m)),
            ],
            out_specs=[
                spec(of_query, lambda i, j, m: (i, 0, m, 0)),
                spec((heads, rows), lambda i, j, m: (i, 0, m)),
                spec((heads, rows), lambda i, j, m: (i, 0, m)),
            ],
        ),
        out_shape=_results(q.shape),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(q, k, v),
        interpret=interpret,
        name="partial_attention",
    )(
        live.astype(jnp.int32),
        fetch.astype(jnp.int32),
        q,
        k,
        v.swapaxes(2, 3) if swapped else v,
        seen[:, None],
    )


def _padded_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes in VMEM, where the last two axes come in tiles of 8 by 128 words of 32 bits."""
    *outer, rows, columns = shape
    packed = 32 // jnp.dtype(dtype).itemsize
    tiles = pl.cdiv(rows, packed) * pl.cdiv(columns, _LANES)
    return math.prod(outer) * tiles * _TILE_BYTES


def _cost(q: Array, k: Array, v: Array) -> pl.CostEstimate:
    """With every page in use; without it XLA takes the call for free when it schedules."""
    products = math.prod(q.shape) * k.shape[-1]
    results = math.prod(q.shape) * 4
    return pl.CostEstimate(
        flops=4 * products,
        transcendentals=products // q.shape[-1],
        bytes_accessed=q.nbytes + k.nbytes + v.nbytes + results,
    )


def _tpu_kernel(
    swapped: bool,
    live: Any,
    fetch: Any,
    q: Any,
    k: Any,
    v: Any,
    seen: Any,
    out: Any,
    top: Any,
    total: Any,
) -> None:
    block, heads = q.shape[:2]
    first = pl.program_id(0) * block

    def page(p: Array, _: None) -> None:
        @pl.when(live[first + p] == 0)
        def blank() -> None:
            out[p] = jnp.zeros_like(out[p])
            top[p] = jnp.full_like(top[p], MASKED)
            total[p] = jnp.zeros_like(total[p])

        @pl.when(live[first + p] != 0)
        def attend() -> None:
            limit = jnp.transpose(seen[p])
            for h in range(heads):
                values = v[p, h].T if swapped else v[p, h]
                out[p, h], top[p, h], total[p, h] = _attend(q[p, h], k[p, h], values, limit)

    jax.lax.fori_loop(0, block, page, None)


def gpu(q: Array, k: Array, v: Array, seen: Array, *, interpret: bool = False) -> Triple:
    """The three arrays of `attention.Partial`, by page, head and block of queries.

    Triton multiplies blocks of powers of two, 16 at least. H and T that are none are padded, which
    copies k and v.
    """
    (pages, heads, queries, size), tokens = q.shape, k.shape[-1]
    rows = min(_GPU_QUERIES, max(16, pl.next_power_of_2(queries)))
    more = pl.cdiv(queries, rows) * rows - queries
    wide, long = (max(16, pl.next_power_of_2(n)) for n in (size, tokens))
    q = _pad(q, (0, 0, more, wide - size))
    k = _pad(k, (0, 0, wide - size, long - tokens))
    v = _pad(v, (0, 0, long - tokens, wide - size))
    seen = _pad(seen, (0, more))

    def whole(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, *shape), lambda w, h, m: (w, h, 0, 0))

    row = pl.BlockSpec((None, None, rows), lambda w, h, m: (w, h, m))
    matrix = pl.BlockSpec((None, None, rows, wide), lambda w, h, m: (w, h, m, 0))
    out, top, total = pl.pallas_call(
        _gpu_kernel,
        grid=(pages, heads, (queries + more) // rows),
        in_specs=[
            matrix,
            whole(wide, long),
            whole(long, wide),
            pl.BlockSpec((None, rows), lambda w, h, m: (w, m)),
        ],
        out_specs=[matrix, row, row],
        out_shape=_results(q.shape),
        compiler_params=plgpu.CompilerParams(num_warps=_WARPS[q.dtype.itemsize], num_stages=1),
        interpret=interpret,
        name="partial_attention",
    )(q, k, v, seen)
    return out[:, :, :queries, :size], top[:, :, :queries], total[:, :, :queries]


def _pad(x: Array, more: tuple[int, ...]) -> Array:
    return jnp.pad(x, [(0, n) for n in more]) if any(more) else x


def _gpu_kernel(q: Any, k: Any, v: Any, seen: Any, out: Any, top: Any, total: Any) -> None:
    limit = seen[...]
    live = jnp.max(limit) > 0

    @pl.when(live)
    def attend() -> None:
        out[...], top[...], total[...] = _attend(q[...], k[...], v[...], limit[:, None])

    @pl.when(jnp.logical_not(live))
    def blank() -> None:
        out[...] = jnp.zeros(out.shape, jnp.float32)
        top[...] = jnp.full(top.shape, MASKED, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)


def _attend(q_MH: Array, k_HT: Array, v_TH: Array, seen_M1: Array) -> Triple:
    """Out [M, H], top and total [M] of one head of one page."""
    scores = jnp.dot(q_MH, k_HT, preferred_element_type=jnp.float32)
    visible = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) < seen_M1
    top = jnp.where(visible, scores, MASKED).max(1, keepdims=True)
    weights = jnp.where(visible, jnp.exp(scores - top), 0.0)
    out = jnp.dot(weights.astype(v_TH.dtype), v_TH, preferred_element_type=jnp.float32)
    return out, top[:, 0], weights.sum(1)


def _results(shape: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
    """Out, top and total for queries of `shape`."""
    return [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, shape[:-1], shape[:-1])]
