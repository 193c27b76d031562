"""Attention over a paged KV pool, a page at a time: every page gives each of its queries a partial
softmax, and the pages of a query are joined by log-sum-exp.

Letters in shapes: W pages (work items), K key/value heads, M queries of a page (its readers times
the query heads of a key/value head), H head size, T tokens of a page.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from malt_jax.models import kernels
from malt_jax.models.kernels import MASKED


class Partial(NamedTuple):
    """A softmax over some of a query's keys, not yet normalised, all float32. With scores s_t:"""

    out: Array  # [W, K, M, H], sum of exp(s_t - top) v_t over the seen tokens
    top: Array  # [W, K, M], the largest seen score, `MASKED` where none is seen
    total: Array  # [W, K, M], sum of exp(s_t - top), 0 where none is seen


PartialAttention = Callable[[Array, Array, Array, Array], Partial]
"""q [W, K, M, H], k [W, K, H, T], v [W, K, T, H], seen int32 [W, M] -> Partial."""

Write = Callable[[Array, Array, Array, Array], Array]
"""A pool's array [W, K, H, T] or, with the last two axes swapped, [W, K, T, H]; what to write
[R, K, H], and the pages and places int32[R] to write it to -> the array with it. Every row has a
page of its own; a page that is not there is left out."""


def writers(platform: str) -> tuple[Write, Write]:
    """How a decoding step adds its keys and its values to the pool, on a platform.

    A CPU writes the elements. Elsewhere XLA would turn the whole pool into another layout for that
    and back, at every step, so the rows' pages are written whole.
    """
    if platform == "cpu":
        return write_key, write_value
    return rewrite_key, rewrite_value


def write_key(pool: Array, new: Array, page: Array, place: Array) -> Array:
    """Keys, element by element."""
    return pool.at[page, :, :, place].set(new, mode="drop")


def write_value(pool: Array, new: Array, page: Array, place: Array) -> Array:
    """Values, element by element."""
    return pool.at[page, :, place].set(new, mode="drop")


def rewrite_key(pool: Array, new: Array, page: Array, place: Array) -> Array:
    """Keys, by whole pages."""
    at_place = (jnp.arange(pool.shape[-1]) == place[:, None])[:, None, None]
    old = jnp.take(pool, page, 0, mode="clip")
    return pool.at[page].set(jnp.where(at_place, new[..., None], old), mode="drop")


def rewrite_value(pool: Array, new: Array, page: Array, place: Array) -> Array:
    """Values, by whole pages."""
    at_place = (jnp.arange(pool.shape[-2]) == place[:, None])[:, None, :, None]
    old = jnp.take(pool, page, 0, mode="clip")
    return pool.at[page].set(jnp.where(at_place, new[:, :, None], old), mode="drop")


def implementation(platform: str) -> PartialAttention:
    """The `partial_attention` for "cpu", "tpu", "gpu" or "cuda", as `jax.Device.platform` says it.

    Raises ValueError for any other platform.
    """
    if platform == "cpu":
        return _on_cpu
    if platform == "tpu":
        return _on_tpu
    if platform in ("gpu", "cuda"):
        return _on_gpu
    raise ValueError(f"no attention for platform {platform!r}: use cpu, tpu, gpu or cuda")


def partial_attention(q: Array, k: Array, v: Array, seen: Array) -> Partial:
    """What each query of a page takes from that page; the definition the kernels are held to.

    q [W, K, M, H], already scaled by H**-0.5; k [W, K, H, T], transposed so that both products read
    it along its rows; v [W, K, T, H]; all float32 or all bfloat16, statistics float32. `seen`
    int32 [W, M] says how many of the page's first tokens a query sees, from 0 to T.
    """
    scores = jnp.einsum("wkmh,wkht->wkmt", q, k, preferred_element_type=jnp.float32)
    visible = (jnp.arange(k.shape[-1]) < seen[..., None])[:, None]
    top = jnp.where(visible, scores, MASKED).max(-1)
    weights = jnp.where(visible, jnp.exp(scores - top[..., None]), 0.0)
    out = jnp.einsum(
        "wkmt,wkth->wkmh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return Partial(out, top, weights.sum(-1))


_CHUNK = 8
"""So many pages and what is made of them stay in a CPU's cache."""


def _on_cpu(q: Array, k: Array, v: Array, seen: Array) -> Partial:
    """`partial_attention`, a few pages at a time and none past the last one that anybody sees: of
    a pool, which grows by doubling, up to three quarters may be free."""
    pages = len(q)
    if pages <= _CHUNK:
        return partial_attention(q, k, v, seen)
    used = jnp.max(jnp.where(seen.any(-1), jnp.arange(pages) + 1, 0))

    def chunk(i: Array, parts: Partial) -> Partial:
        start = jnp.minimum(i * _CHUNK, pages - _CHUNK)
        some = (jax.lax.dynamic_slice_in_dim(x, start, _CHUNK) for x in (q, k, v, seen))
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0),
            parts,
            partial_attention(*some),
        )

    return jax.lax.fori_loop(0, -(-used // _CHUNK), chunk, nothing(q.shape))


def _on_tpu(q: Array, k: Array, v: Array, seen: Array) -> Partial:
    return Partial(*kernels.tpu(q, k, v, seen))


def _on_gpu(q: Array, k: Array, v: Array, seen: Array) -> Partial:
    return Partial(*kernels.gpu(q, k, v, seen))


def join(a: Partial, b: Partial) -> Partial:
    """Two partial softmaxes over different keys as one, by log-sum-exp. One that sees nothing
    changes no bit of the other."""
    top = jnp.maximum(a.top, b.top)
    of_a, of_b = jnp.exp(a.top - top), jnp.exp(b.top - top)
    out = a.out * of_a[..., None] + b.out * of_b[..., None]
    return Partial(out, top, a.total * of_a + b.total * of_b)


def nothing(shape: Sequence[int]) -> Partial:
    """The softmax over no key, of queries [..., H]: the neutral element of `join`."""
    *queries, _ = shape
    return Partial(jnp.zeros(shape), jnp.full(queries, MASKED), jnp.zeros(queries))


def normalised(part: Partial) -> Array:
    """The attention float32[..., H] that a partial softmax amounts to; 0 where no key was seen."""
    return part.out / jnp.where(part.total > 0, part.total, 1.0)[..., None]
