"""The sampler's programs. Each is compiled once for every bucket of rows, tiles or pages.

Letters in shapes: E shards, R rows, L steps of a pass, r rank of the stacked adapters; the others
as in `models.paged`.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from malt_jax.models import kv_cache, llama, paged
from malt_jax.models.attention import PartialAttention, Write
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params
from malt_jax.sampler.draw import Sampling, draw, draw_by_row, uniforms
from malt_jax.sampler.schedule import Plan
from malt_jax.sampler.widths import Costs

STEPS = 16
"""The most steps of one decoding pass, after which the host looks at its rows again."""

jax.tree_util.register_dataclass(Plan)


@dataclass(frozen=True)
class Fixed:
    """What is compiled in."""

    config: LlamaConfig
    mesh: Mesh
    attention: PartialAttention
    write: tuple[Write, Write]
    stop_ids: tuple[int, ...]
    pad_id: int


class Drawn(NamedTuple):
    """What a decoding pass drew: row r's are the first `counts[r]` of its tokens."""

    tokens: Array  # int32[E, R, L]
    logps: Array  # float32[E, R, L], under the model itself
    behaviour: Array  # float32[E, R, L], under the distribution that was sampled
    counts: Array  # int32[E, R]
    stopped: Array  # bool[E, R]
    steps: Array  # int32[]


def _decode(
    fixed: Fixed,
    params: Params,
    adapter: Adapter | None,
    gates: Array | None,
    shared: kv_cache.Pool,
    decoded: kv_cache.Pool,
    plan: Plan,
    floor: Array,
    sampling: Sampling | None,
) -> tuple[Drawn, kv_cache.Pool]:
    """Decodes up to `STEPS` tokens a row, ending early once no more than `floor` rows are live.

    `gates: float32[A, r]` are the shares of the stacked adapter (`lora.gates`). Without `sampling`
    the plan says how each row is sampled, and how many steps the pass has at most.
    """
    stops = jnp.array(fixed.stop_ids, jnp.int32)
    chosen = None if gates is None else gates[plan.adapter]
    live_at_first = plan.count < plan.limit
    most = STEPS if sampling is not None else plan.most

    def body(state: _Decoding) -> _Decoding:
        step, token, count, live, stopped, tokens, logps, behaviour, decoded = state
        hidden, decoded = paged.decode(
            fixed.config,
            fixed.mesh,
            fixed.attention,
            fixed.write,
            params,
            token,
            _rows_at(plan, count, live_at_first, decoded),
            shared,
            decoded,
            adapter,
            chosen,
        )
        logits = llama.unembed(fixed.config, params, hidden)
        uniform = uniforms(plan.keys, count)
        if sampling is None:
            assert plan.how is not None
            drawn, logp, sampled_logp = draw_by_row(logits, uniform, plan.how)
        else:
            drawn, logp, sampled_logp = draw(logits, uniform, sampling)
        token = jnp.where(live, drawn, fixed.pad_id)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=2)
        tokens = put(tokens, token)
        logps = put(logps, jnp.where(live, logp, 0.0))
        behaviour = put(behaviour, jnp.where(live, sampled_logp, 0.0))
        count = count + live
        stopped = stopped | (live & jnp.isin(token, stops))
        live = live & ~stopped & (count < plan.limit)
        return _Decoding(step + 1, token, count, live, stopped, tokens, logps, behaviour, decoded)

    def unfinished(state: _Decoding) -> Array:
        return (state.step < most) & (state.live.sum() > floor)

    final = jax.lax.while_loop(
        unfinished, body, _undecoded(plan, live_at_first, fixed.pad_id, decoded)
    )
    counts = final.drawn - plan.count
    results = Drawn(final.tokens, final.logps, final.behaviour, counts, final.stopped, final.step)
    return results, final.decoded


class _Decoding(NamedTuple):
    """A decoding pass between two tokens; the arrays are those of `Drawn` and `Plan`."""

    step: Array  # int32[]
    token: Array  # int32[E, R]
    drawn: Array  # int32[E, R], tokens drawn so far
    live: Array  # bool[E, R]
    stopped: Array  # bool[E, R]
    tokens: Array  # int32[E, R, L]
    logps: Array  # float32[E, R, L]
    behaviour: Array  # float32[E, R, L]
    decoded: kv_cache.Pool


def _undecoded(plan: Plan, live: Array, pad_id: int, decoded: kv_cache.Pool) -> _Decoding:
    """A pass before its first token."""
    shape = plan.token.shape
    return _Decoding(
        jnp.int32(0),
        plan.token,
        plan.count,
        live,
        jnp.zeros(shape, bool),
        jnp.full((*shape, STEPS), pad_id, jnp.int32),
        jnp.zeros((*shape, STEPS), jnp.float32),
        jnp.zeros((*shape, STEPS), jnp.float32),
        decoded,
    )


def _rows_at(plan: Plan, count: Array, live: Array, decoded: kv_cache.Pool) -> paged.Rows:
    """Where the rows stand once they have drawn `count: int32[E, R]` tokens. Rows that are not
    `live` when the pass begins write to no page."""
    size, pages = decoded[0][0].shape[-1], decoded[0][0].shape[1]
    table, owner = plan.decoded.table, plan.decoded.readers
    page = jnp.take_along_axis(table, count[..., None] // size, 2, mode="clip")[..., 0]
    counts = jnp.take_along_axis(count[..., None], owner, 1)
    seen = jnp.where(plan.begin < 0, 0, jnp.clip(counts[..., 0] + 1 - plan.begin, 0, size))
    return paged.Rows(
        plan.before + count,
        jnp.where(live, page, pages),
        count % size,
        plan.shared,
        plan.decoded._replace(seen=seen[..., None]),
    )


def _prefill(
    fixed: Fixed,
    params: Params,
    adapter: Adapter | None,
    gates: Array | None,
    pool: kv_cache.Pool,
    tiles: paged.Tiles,
    adapters: Array,
) -> kv_cache.Pool:
    """The prompt pool with the tiles' keys and values; `adapters: int32[E, B]`."""
    chosen = None if gates is None else gates[adapters]
    return paged.prefill(
        fixed.config, fixed.mesh, fixed.attention, params, tiles, pool, adapter, chosen
    )


def _copy(
    fixed: Fixed, source: kv_cache.Pool | None, target: kv_cache.Pool, moves: kv_cache.Moves
) -> kv_cache.Pool:
    return kv_cache.copy(fixed.config, fixed.mesh, source, target, moves)


class Programs(NamedTuple):
    """The compiled functions."""

    decode: Any  # `_decode`
    prefill: Any  # `_prefill`
    copy: Any  # `kv_cache.copy`
    resized: Any  # `kv_cache.resized`
    costs: Costs  # of `decode` and `prefill`


def options(platform: str) -> dict[str, str]:
    """The compiler's options for a platform.

    On a CPU, XLA may hand sums over rows to a library that adds in another order from some size on.
    That is switched off here, so that a row's bits do not depend on how many stand beside it.
    """
    only_products = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    return {"xla_cpu_experimental_ynn_fusion_type": only_products} if platform == "cpu" else {}


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
_COMPILED = "/jax/core/compile/backend_compile_duration"


def _give_back(event: str, *_: Any, **__: Any) -> None:
    """Hands the system what compiling has freed; the allocator would keep 300 MB a program."""
    if event == _COMPILED and _malloc_trim is not None:
        _malloc_trim(0)


@lru_cache
def programs(platform: str) -> Programs:
    """The programs for a platform."""
    if platform == "cpu":
        jax.monitoring.register_event_duration_secs_listener(_give_back)
    jit = partial(jax.jit, compiler_options=options(platform))
    return Programs(
        jit(_decode, static_argnames=("fixed", "sampling"), donate_argnames=("decoded",)),
        jit(_prefill, static_argnames=("fixed",), donate_argnames=("pool",)),
        jit(_copy, static_argnames=("fixed",), donate_argnames=("target",)),
        jit(kv_cache.resized),
        {},
    )
