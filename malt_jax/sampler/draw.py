"""Drawing a token a row: one uniform number from the row's key and its position, one inverse
transform.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class ByRow(NamedTuple):
    """How a token is drawn, row by row; numpy's arrays or jax's."""

    temperature: Any  # float32[...]
    top_k: Any  # int32[...]
    top_p: Any  # float32[...]


def uniforms(keys: Array, places: Array) -> Array:
    """One number in [0, 1) a row, from its key (threefry key data) and the place of the token in
    its completion: `keys: uint32[..., 2]`, `places: int32[...]` -> float32[...]."""

    def uniform(key: Array, place: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key), place))

    flat = jax.vmap(uniform)(keys.reshape(-1, 2), places.reshape(-1))
    return flat.reshape(places.shape)


def draw(logits: Array, uniform: Array, sampling: Sampling) -> tuple[Array, Array, Array]:
    """A token a row by inverse transform of one uniform number: `logits[..., V]`, `uniform[...]`.

    Returns tokens int32[...] and their log-probabilities, twice float32[...]: under the unmodified
    logits, and under the distribution that was sampled (temperature, top-k and top-p applied; 0
    where it is greedy). Both are one array where nothing is applied.
    """
    top = logits.max(-1, keepdims=True)
    total = _blocks(jnp.exp(logits - top)).sum(-1).sum(-1)
    if sampling.temperature == 0:
        token = jnp.argmax(logits, -1).astype(jnp.int32)
    else:
        kept = truncate(logits, sampling.top_k, sampling.top_p, sampling.temperature)
        weights = jnp.exp((kept - top) / sampling.temperature)
        token = inverse_cdf(weights, uniform)
    below_top = (jnp.take_along_axis(logits, token[..., None], -1) - top)[..., 0]
    logp = below_top - jnp.log(total)
    if sampling.temperature == 0:
        return token, logp, jnp.zeros_like(logp)
    if sampling.temperature == 1 and kept is logits:
        return token, logp, logp
    behaviour = below_top / sampling.temperature - jnp.log(_blocks(weights).sum(-1).sum(-1))
    return token, logp, behaviour


def draw_by_row(logits: Array, uniform: Array, how: ByRow) -> tuple[Array, Array, Array]:
    """`draw` with another sampling in every row. What a row is given does not depend on how the
    others are drawn, and the vocabulary is only sorted where a row asks for it."""
    top = logits.max(-1, keepdims=True)
    total = _blocks(jnp.exp(logits - top)).sum(-1).sum(-1)
    greedy = how.temperature == 0
    temperature = jnp.where(greedy, 1.0, how.temperature)
    cut = ((how.top_k > 0) & (how.top_k < logits.shape[-1])) | (how.top_p < 1)
    kept = jax.lax.cond(
        cut.any(),
        lambda: truncate_by_row(logits, how._replace(temperature=temperature)),
        lambda: logits,
    )
    weights = jnp.exp((kept - top) / temperature[..., None])
    token = jnp.where(greedy, jnp.argmax(logits, -1), inverse_cdf(weights, uniform))
    token = token.astype(jnp.int32)
    below_top = (jnp.take_along_axis(logits, token[..., None], -1) - top)[..., 0]
    behaviour = below_top / temperature - jnp.log(_blocks(weights).sum(-1).sum(-1))
    return token, below_top - jnp.log(total), jnp.where(greedy, 0.0, behaviour)


def truncate_by_row(logits: Array, how: ByRow) -> Array:
    """`truncate` with another top_k and top_p in every row; no temperature is 0."""
    size = logits.shape[-1]
    ordered = jnp.sort(logits, -1, descending=True)
    last = jnp.where((how.top_k > 0) & (how.top_k < size), how.top_k, size) - 1
    least = jnp.take_along_axis(ordered, last[..., None], -1)
    ordered = jnp.where(ordered < least, -jnp.inf, ordered)
    probs = jax.nn.softmax(ordered / how.temperature[..., None], -1)
    before = jnp.cumsum(probs, -1) - probs
    nucleus = jnp.where(before < how.top_p[..., None], ordered, jnp.inf).min(-1, keepdims=True)
    least = jnp.where(how.top_p[..., None] < 1, jnp.maximum(least, nucleus), least)
    return jnp.where(logits < least, -jnp.inf, logits)


def truncate(logits: Array, top_k: int, top_p: float, temperature: float = 1.0) -> Array:
    """Sets to -inf what is not among the top_k logits, then what lies outside the nucleus of mass
    top_p at `temperature`.

    The nucleus (arXiv 1904.09751) is the smallest set of most likely tokens with at least that
    mass.
    """
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1.0:
        ordered = jnp.sort(logits, -1, descending=True)
        probs = jax.nn.softmax(ordered / temperature, -1)
        before = jnp.cumsum(probs, -1) - probs
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), -1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


_BLOCK = 256


def inverse_cdf(weights: Array, uniform: Array) -> Array:
    """The first index at which the running sum of `weights[..., V]`, none below 0, exceeds
    `uniform[...]` times its total.

    Summed in blocks: first the block, then the place in it, which costs one pass over the
    vocabulary.
    """
    blocks = _blocks(weights)
    ends = _running_sum(blocks.sum(-1))
    target = uniform * ends[..., -1]
    block = _first_above(ends, target)
    inside = jnp.take_along_axis(blocks, block[..., None, None], -2)[..., 0, :]
    before = jnp.take_along_axis(ends, block[..., None], -1)[..., 0] - inside.sum(-1)
    place = _first_above(before[..., None] + _running_sum(inside), target)
    # Rounding may leave the target just past the block's end: take its last possible token then.
    possible = jnp.where(inside > 0, jnp.arange(_BLOCK), -1).max(-1)
    return (block * _BLOCK + jnp.minimum(place, possible)).astype(jnp.int32)


def _blocks(x: Array) -> Array:
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _BLOCK)])
    return padded.reshape(*x.shape[:-1], -1, _BLOCK)


def _running_sum(x: Array) -> Array:
    # One small product: XLA's CPU backend adds up every window anew for jnp.cumsum.
    below = jnp.tri(x.shape[-1], dtype=x.dtype)
    return jnp.einsum("...i,oi->...o", x, below, precision=jax.lax.Precision.HIGHEST)


def _first_above(sums: Array, target: Array) -> Array:
    return jnp.minimum((sums <= target[..., None]).sum(-1), sums.shape[-1] - 1)
