"""Log-probabilities of completions under a model and an adapter: what every training loss is made
of."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from malt_jax.learn.losses import token_logprobs
from malt_jax.learn.packing import Batch
from malt_jax.models import training
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params
from malt_jax.models.training import Remat
from malt_jax.runtime.mesh import constrain

CHUNK = 128  # predictions of a row whose logits exist at a time
_slice = jax.lax.dynamic_slice_in_dim
_update = jax.lax.dynamic_update_slice_in_dim


def completion_logprobs(
    config: LlamaConfig,
    params: Params,
    adapter: Adapter | None,
    batch: Batch,
    *,
    remat: Remat = "keep_all",
) -> Array:
    """Log-probabilities float32[R, P] of the batch's targets; places of padding say nothing.

    Differentiable in the adapter; the base gets no gradient from the head, which is frozen.
    """
    hidden = predicting(config, params, adapter, batch, remat=remat)
    return target_logprobs(config, params, hidden, batch)


def predicting(
    config: LlamaConfig,
    params: Params,
    adapter: Adapter | None,
    batch: Batch,
    *,
    remat: Remat = "keep_all",
) -> Array:
    """The hidden states that predict the batch's targets: [R, P, D]."""
    fields = (batch.tokens, batch.positions, batch.example, batch.branch)
    hidden = training.hidden_states(config, params, adapter, *map(jnp.asarray, fields), remat=remat)
    return jnp.take_along_axis(hidden, batch.source[..., None], 1)


def target_logprobs(config: LlamaConfig, params: Params, hidden: Array, batch: Batch) -> Array:
    """`completion_logprobs` from the batch's `predicting` states."""
    target = _whole_chunks(jnp.asarray(batch.target))
    logps = _score(_whole_chunks(hidden), _head(config, params), target, _used(batch))
    return logps[:, : batch.target.shape[1]]


def token_kl(
    config: LlamaConfig, params: Params, ours: Array, theirs: Array, batch: Batch
) -> Array:
    """KL(ours || theirs) of the next-token distributions in front of every completion token, in
    nats, exact over the vocabulary: float32[R, P]; places of padding say nothing.

    `ours` and `theirs` are the `predicting` states of one base under two adapters. Logits exist
    for a chunk of positions at a time.
    """
    head, states = _head(config, params), [_whole_chunks(hidden) for hidden in (ours, theirs)]
    nothing = jnp.zeros(states[0].shape[:2], jnp.int32)

    def chunk(i: Array, kl: Array) -> Array:
        ours_C, theirs_C = (
            jax.nn.log_softmax(_logits(hidden, head, nothing, i)[0]) for hidden in states
        )
        part = jnp.sum(jnp.exp(ours_C) * (ours_C - theirs_C), -1)
        return _update(kl, part, i * CHUNK, 1)

    kl = jax.lax.fori_loop(0, _chunks(_used(batch)), chunk, nothing.astype(jnp.float32))
    return kl[:, : batch.target.shape[1]]


def per_sequence(logps: Array, batch: Batch) -> tuple[Array, Array]:
    """float32[S] sums of [R, P] log-probabilities over each completion, and int32[S] its tokens (0
    where there is no completion)."""
    ids, places = batch.sequence.reshape(-1), batch.sequences + 1
    sums = jax.ops.segment_sum(logps.reshape(-1), ids, places)[:-1]
    return sums, jax.ops.segment_sum(jnp.ones(ids.shape, jnp.int32), ids, places)[:-1]


@partial(jax.jit, static_argnames="config")
def sequence_logprobs(
    config: LlamaConfig, params: Params, adapter: Adapter | None, batches: Batch
) -> Array:
    """log pi(completion | prompt), summed over tokens, of K micro-batches: float32[K, S] (0 where
    there is no completion)."""

    def sums(batch: Batch) -> Array:
        return per_sequence(completion_logprobs(config, params, adapter, batch), batch)[0]

    return jax.lax.map(sums, batches)


@jax.custom_vjp
def _score(hidden: Array, head: Array, target: Array, used: Array) -> Array:
    """log p(target) float32[R, P] from hidden [R, P, D] and a frozen head [V, D]. Only the first
    `used` places are computed; the others are 0."""

    def chunk(i: Array, logps: Array) -> Array:
        logits, targets = _logits(hidden, head, target, i)
        return _update(logps, token_logprobs(logits, targets), i * CHUNK, 1)

    return jax.lax.fori_loop(0, _chunks(used), chunk, jnp.zeros(target.shape, jnp.float32))


def _score_forward(
    hidden: Array, head: Array, target: Array, used: Array
) -> tuple[Array, tuple[Array, Array]]:
    """Beside log p(y) its gradient to the hidden state, W[y] - sum_v p_v W_v: the head being
    frozen, that vector is all that the backward pass needs of the logits."""

    def chunk(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        logps, pulls = sums
        logits, targets = _logits(hidden, head, target, i)
        lse = jax.nn.logsumexp(logits, -1, keepdims=True)
        logp = jnp.take_along_axis(logits, targets[..., None], -1) - lse
        mean = jnp.einsum(
            "rpv,vd->rpd",
            jnp.exp(logits - lse).astype(head.dtype),
            head,
            preferred_element_type=jnp.float32,
        )
        pull = (head[targets] - mean).astype(hidden.dtype)
        at = i * CHUNK
        return _update(logps, logp[..., 0], at, 1), _update(pulls, pull, at, 1)

    start = (jnp.zeros(target.shape, jnp.float32), jnp.zeros_like(hidden))
    logps, pulls = jax.lax.fori_loop(0, _chunks(used), chunk, start)
    return logps, (pulls, head)


def _score_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Any, ...]:
    pulls, _ = kept
    return (grad[..., None] * pulls).astype(pulls.dtype), None, None, None


_score.defvjp(_score_forward, _score_backward)


def _head(config: LlamaConfig, params: Params) -> Array:
    return constrain(params["embed" if config.tied else "head"], ("vocab", None))


def _used(batch: Batch) -> Array:
    """The most predictions in a row."""
    return jnp.max(jnp.sum(batch.counted, -1))


def _whole_chunks(array: Array) -> Array:
    """[R, P, ...] with P padded to a multiple of CHUNK."""
    more = -array.shape[1] % CHUNK
    return jnp.pad(array, ((0, 0), (0, more), *((0, 0),) * (array.ndim - 2)))


def _chunks(used: Array) -> Array:
    return (used + CHUNK - 1) // CHUNK


def _logits(hidden: Array, head: Array, target: Array, i: Array) -> tuple[Array, Array]:
    """Chunk `i`'s logits float32[R, C, V] and targets int32[R, C]."""
    states, targets = (_slice(x, i * CHUNK, CHUNK, 1) for x in (hidden, target))
    logits = jnp.einsum("rpd,vd->rpv", states, head, preferred_element_type=jnp.float32)
    return logits, targets
