"""The sampler: token ids in, token ids and log-probabilities out. It knows no text, no role and
no task.

A prompt is prefilled once and its n children decode against the shared keys and values. A row's
tokens depend on its own prompt, key and adapter alone: rows are padded to one batch size and
prompts to their own bucket, so that neither the order of the requests nor an interrupted run
changes a bit (on CPU in float32).

Letters in shapes: P prompts, C children a prompt, S prompt length, L decoded length, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from malt_jax import mesh as meshes
from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Request:
    """One prompt and the random keys of its children: `keys: uint32[C, 2]`, one a child."""

    prompt: Sequence[int]
    keys: np.ndarray


@dataclass(frozen=True)
class Completion:
    """One sampled row. `tokens` ends with the stop id iff `stopped`; else it ran to its limit.

    `logps: float32[len(tokens)]` are log-probabilities under the model itself (temperature 1,
    nothing cut).
    """

    tokens: list[int]
    logps: np.ndarray
    stopped: bool


@dataclass(frozen=True)
class Sampler:
    """A model on its mesh, ready to sample `rows` sequences at a time."""

    config: LlamaConfig
    params: Params
    mesh: Mesh
    rows: int
    stop_ids: tuple[int, ...]
    pad_id: int

    def __call__(
        self,
        requests: Sequence[Request],
        adapter: Adapter | None,
        *,
        max_new_tokens: int,
        sampling: Sampling,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yields (index of the request, its children's completions) as batches finish, in no
        promised order.

        Raises ValueError if a prompt and its completion do not fit the model's context.
        """
        if not requests:
            return
        children = len(requests[0].keys)
        devices = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        width = -(-max(self.rows // children, 1) // devices) * devices
        groups: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            if len(request.prompt) + max_new_tokens > self.config.context:
                raise ValueError(
                    f"a prompt of {len(request.prompt)} tokens and {max_new_tokens} new ones do "
                    f"not fit the model's context of {self.config.context}; lower "
                    "config.data.max_chars or config.roles.*.max_new_tokens"
                )
            groups.setdefault(bucket(len(request.prompt)), []).append(i)
        for size, members in sorted(groups.items()):
            for start in range(0, len(members), width):
                batch = members[start : start + width]
                chosen = [requests[i] for i in batch]
                rows = self._run(chosen, adapter, width, size, max_new_tokens, sampling)
                yield from zip(batch, rows, strict=True)

    def _run(
        self,
        requests: Sequence[Request],
        adapter: Adapter | None,
        width: int,
        size: int,
        max_new_tokens: int,
        sampling: Sampling,
    ) -> list[list[Completion]]:
        prompts = np.full((width, size), self.pad_id, np.int32)
        lengths = np.zeros(width, np.int32)
        keys = np.zeros((width, *requests[0].keys.shape), np.uint32)
        for row, request in enumerate(requests):
            prompts[row, : len(request.prompt)] = request.prompt
            lengths[row], keys[row] = len(request.prompt), request.keys
        place = partial(meshes.put_batch, self.mesh)
        tokens, logps, counts, stopped = jax.device_get(
            generate(
                self.config,
                self.params,
                adapter,
                place(prompts),
                place(lengths),
                place(keys),
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                stop_ids=self.stop_ids,
                pad_id=self.pad_id,
            )
        )

        def completion(p: int, c: int) -> Completion:
            n = counts[p, c]
            return Completion(tokens[p, c, :n].tolist(), logps[p, c, :n], bool(stopped[p, c]))

        return [[completion(p, c) for c in range(keys.shape[1])] for p in range(len(requests))]


def bucket(length: int) -> int:
    """The padded length of a prompt: the least of 32, 48, 64, 96, 128, 192, ... that holds it."""
    power = 32
    while power < length:
        if power * 3 // 2 >= length:
            return power * 3 // 2
        power *= 2
    return power


@partial(
    jax.jit,
    static_argnames=("config", "max_new_tokens", "sampling", "stop_ids", "pad_id"),
)
def generate(
    config: LlamaConfig,
    params: Params,
    adapter: Adapter | None,
    prompts: Array,
    lengths: Array,
    keys: Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: tuple[int, ...],
    pad_id: int,
) -> tuple[Array, Array, Array, Array]:
    """Samples C children for each of P right-padded prompts; rows of length 0 are padding and end
    at once.

    `prompts: int32[P, S]`, `lengths: int32[P]`, `keys: uint32[P, C, 2]` (threefry key data).
    Returns tokens int32[P, C, L], log-probabilities float32[P, C, L], counts int32[P, C] and
    stopped bool[P, C].
    """
    (n_prompts, size), children = prompts.shape, keys.shape[1]
    shape = (n_prompts, children)
    mask = jnp.arange(size) < lengths[:, None]
    hidden, prefix = llama.forward(config, params, prompts, mask, adapter)
    last = jnp.take_along_axis(hidden, jnp.maximum(lengths - 1, 0)[:, None, None], 1)
    own = (*shape, config.num_kv_heads, max_new_tokens, config.head_dim)
    stops = jnp.array(stop_ids, jnp.int32)

    def body(state: Any) -> Any:
        step, last, suffix, tokens, logps, counts, stopped = state
        live = ~stopped & (counts == step) & (lengths > 0)[:, None]
        token, logp = draw(llama.unembed(config, params, last), _at(keys, step), sampling)
        token = jnp.where(live, token, pad_id)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, step, 2)
        logps = jax.lax.dynamic_update_index_in_dim(logps, jnp.where(live, logp, 0.0), step, 2)
        positions = lengths[:, None] + jnp.full(shape, step)
        last, suffix = llama.decode_step(
            config, params, token, positions, prefix, mask, suffix, step, adapter
        )
        stopped = stopped | (live & jnp.isin(token, stops))
        return step + 1, last, suffix, tokens, logps, counts + live, stopped

    def unfinished(state: Any) -> Array:
        step, *_, counts, stopped = state
        return (step < max_new_tokens) & jnp.any(
            ~stopped & (counts == step) & (lengths > 0)[:, None]
        )

    state = (
        jnp.int32(0),
        jnp.broadcast_to(last, (*shape, hidden.shape[-1])),
        [(jnp.zeros(own, k.dtype), jnp.zeros(own, v.dtype)) for k, v in prefix],
        jnp.full((*shape, max_new_tokens), pad_id, jnp.int32),
        jnp.zeros((*shape, max_new_tokens), jnp.float32),
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, bool),
    )
    _, _, _, tokens, logps, counts, stopped = jax.lax.while_loop(unfinished, body, state)
    return tokens, logps, counts, stopped


def _at(keys: Array, step: Array) -> Array:
    """One uniform number in [0, 1) a row, from its key and its position: float32 of keys' leading
    shape."""

    def uniform(key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key), step))

    return jax.vmap(jax.vmap(uniform))(keys)


def draw(logits: Array, uniform: Array, sampling: Sampling) -> tuple[Array, Array]:
    """A token a row by inverse transform of one uniform number: `logits[..., V]`, `uniform[...]`.

    Returns tokens int32[...] and their log-probabilities float32[...] under the unmodified logits.
    """
    logp = jax.nn.log_softmax(logits, -1)
    if sampling.temperature == 0:
        token = jnp.argmax(logits, -1).astype(jnp.int32)
    else:
        kept = truncate(logits / sampling.temperature, sampling.top_k, sampling.top_p)
        token = inverse_cdf(jax.nn.softmax(kept, -1), uniform)
    return token, jnp.take_along_axis(logp, token[..., None], -1)[..., 0]


def truncate(logits: Array, top_k: int, top_p: float) -> Array:
    """Sets to -inf what is not among the top_k logits, then what lies outside the nucleus of mass
    top_p.

    The nucleus (arXiv 1904.09751) is the smallest set of most likely tokens with at least that
    mass.
    """
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1.0:
        ordered = jnp.sort(logits, -1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered, -1), -1) - jax.nn.softmax(ordered, -1)
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), -1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


_BLOCK = 256


def inverse_cdf(probs: Array, uniform: Array) -> Array:
    """The first index at which the running sum of `probs[..., V]` exceeds `uniform[...]` times
    its total.

    Summed in blocks: first the block, then the place in it, which costs one pass over the
    vocabulary.
    """
    vocab = probs.shape[-1]
    padded = jnp.pad(probs, [(0, 0)] * (probs.ndim - 1) + [(0, -vocab % _BLOCK)])
    blocks = padded.reshape(*probs.shape[:-1], -1, _BLOCK)
    ends = jnp.cumsum(blocks.sum(-1), -1)
    target = uniform * ends[..., -1]
    block = _first_above(ends, target)
    inside = jnp.take_along_axis(blocks, block[..., None, None], -2)[..., 0, :]
    before = jnp.take_along_axis(ends, block[..., None], -1)[..., 0] - inside.sum(-1)
    place = _first_above(before[..., None] + jnp.cumsum(inside, -1), target)
    # Rounding may leave the target just past the block's end: take its last possible token then.
    possible = jnp.where(inside > 0, jnp.arange(_BLOCK), -1).max(-1)
    return (block * _BLOCK + jnp.minimum(place, possible)).astype(jnp.int32)


def _first_above(sums: Array, target: Array) -> Array:
    return jnp.minimum((sums <= target[..., None]).sum(-1), sums.shape[-1] - 1)
