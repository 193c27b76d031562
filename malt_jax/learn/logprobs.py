"""Log-probabilities of completions under a model and an adapter: what every training loss is made
of."""

from dataclasses import dataclass
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
from malt_jax.sampler.draw import Sampling, truncate

CHUNK = 128  # predictions of a row whose logits exist at a time
_slice = jax.lax.dynamic_slice_in_dim
_update = jax.lax.dynamic_update_slice_in_dim


@dataclass(frozen=True)
class Drawn:
    """The distribution that a loss is of where that is not the model's own but the one that was
    sampled, and whether its entropy has a gradient (one more product with the head)."""

    sampling: Sampling  # of a temperature above 0
    entropy_gradient: bool = False


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


def drawn_logprobs(
    config: LlamaConfig, params: Params, hidden: Array, batch: Batch, drawn: Drawn
) -> tuple[Array, Array]:
    """From the batch's `predicting` states, of the distribution that `drawn` says:
    log-probabilities of the targets, and entropies in nats, float32[R, P] each; places of padding
    say nothing.

    They are what `sampler.draw` gives, but that a target is never cut: under a policy that has
    moved on, a token that was drawn may have left the nucleus. What is cut has no gradient.
    """
    target = _whole_chunks(jnp.asarray(batch.target))
    scores = _score_drawn(_whole_chunks(hidden), _head(config, params), target, _used(batch), drawn)
    logps, entropy = (score[:, : batch.target.shape[1]] for score in scores)
    return logps, entropy if drawn.entropy_gradient else jax.lax.stop_gradient(entropy)


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


def at_tokens(figures: Array, batch: Batch) -> Array:
    """float32[R, P]: at each token the figure of its completion, of float32[S]; 0 at padding."""
    return jnp.append(figures, 0.0)[jnp.asarray(batch.sequence)]


@partial(jax.jit, static_argnames="config")
def sequence_logprobs(
    config: LlamaConfig, params: Params, adapter: Adapter | None, batches: Batch
) -> Array:
    """log pi(completion | prompt), summed over tokens, of K micro-batches: float32[K, S] (0 where
    there is no completion)."""

    def sums(batch: Batch) -> Array:
        return per_sequence(completion_logprobs(config, params, adapter, batch), batch)[0]

    return jax.lax.map(sums, batches)


@partial(jax.jit, static_argnames=("config", "drawn"))
def base_logprobs(
    config: LlamaConfig, params: Params, batches: Batch, drawn: Drawn | None
) -> Array:
    """Log-probabilities of K micro-batches' targets under the base without an adapter, of the
    distribution that `drawn` says, or of the model's own: float32[K, R, P]."""

    def score(batch: Batch) -> Array:
        hidden = predicting(config, params, None, batch)
        if drawn is None:
            return target_logprobs(config, params, hidden, batch)
        return drawn_logprobs(config, params, hidden, batch, drawn)[0]

    return jax.lax.map(score, batches)


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
        pull = (head[targets] - _expected(jnp.exp(logits - lse), head)).astype(hidden.dtype)
        at = i * CHUNK
        return _update(logps, logp[..., 0], at, 1), _update(pulls, pull, at, 1)

    start = (jnp.zeros(target.shape, jnp.float32), jnp.zeros_like(hidden))
    logps, pulls = jax.lax.fori_loop(0, _chunks(used), chunk, start)
    return logps, (pulls, head)


def _score_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Any, ...]:
    pulls, _ = kept
    return (grad[..., None] * pulls).astype(pulls.dtype), None, None, None


_score.defvjp(_score_forward, _score_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _score_drawn(
    hidden: Array, head: Array, target: Array, used: Array, drawn: Drawn
) -> tuple[Array, Array]:
    """As `_score`, of the distribution that was sampled: log p(target) and entropy, float32[R, P]
    each."""

    def chunk(i: Array, scores: tuple[Array, Array]) -> tuple[Array, Array]:
        logp, entropy, _ = _drawn_chunk(hidden, head, target, i, drawn)
        at = i * CHUNK
        return _update(scores[0], logp, at, 1), _update(scores[1], entropy, at, 1)

    nothing = jnp.zeros(target.shape, jnp.float32)
    return jax.lax.fori_loop(0, _chunks(used), chunk, (nothing, nothing))


def _score_drawn_forward(
    hidden: Array, head: Array, target: Array, used: Array, drawn: Drawn
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    """The gradients to the hidden state beside the scores: (W[y] - sum_v p_v W_v) / T of log p(y),
    and -sum_v p_v (log p_v + H) W_v / T of the entropy H, where that is asked for."""

    def chunk(i: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        logp, entropy, logps = _drawn_chunk(hidden, head, target, i, drawn)
        probs, targets = jnp.exp(logps), _slice(target, i * CHUNK, CHUNK, 1)
        pulls = [head[targets] - _expected(probs, head)]
        if drawn.entropy_gradient:
            surprise = jnp.where(probs > 0, logps, 0.0) + entropy[..., None]
            pulls.append(-_expected(probs * surprise, head))
        temperature = drawn.sampling.temperature
        parts = [logp, entropy, *((pull / temperature).astype(hidden.dtype) for pull in pulls)]
        return tuple(_update(x, part, i * CHUNK, 1) for x, part in zip(state, parts, strict=True))

    nothing, still = jnp.zeros(target.shape, jnp.float32), jnp.zeros_like(hidden)
    start = (nothing, nothing, still, *((still,) if drawn.entropy_gradient else ()))
    logps, entropy, *pulls = jax.lax.fori_loop(0, _chunks(used), chunk, start)
    return (logps, entropy), tuple(pulls)


def _score_drawn_backward(
    drawn: Drawn, pulls: tuple[Array, ...], grads: tuple[Array, Array]
) -> tuple[Any, ...]:
    total = sum(grad[..., None] * pull for grad, pull in zip(grads, pulls, strict=False))
    return jnp.asarray(total).astype(pulls[0].dtype), None, None, None


_score_drawn.defvjp(_score_drawn_forward, _score_drawn_backward)


def _drawn_chunk(
    hidden: Array, head: Array, target: Array, i: Array, drawn: Drawn
) -> tuple[Array, Array, Array]:
    """Chunk `i`'s log p(target) and entropy, float32[R, C] each, and log p float32[R, C, V], -inf
    where it is cut."""
    logits, targets = _logits(hidden, head, target, i)
    sampling = drawn.sampling
    kept = truncate(logits, sampling.top_k, sampling.top_p, sampling.temperature)
    if kept is not logits:
        drawn_token = jnp.arange(logits.shape[-1]) == targets[..., None]
        kept = jnp.where(drawn_token, logits, kept)
    scaled = (kept - logits.max(-1, keepdims=True)) / sampling.temperature
    logps = scaled - jnp.log(jnp.exp(scaled).sum(-1, keepdims=True))
    entropy = -jnp.sum(jnp.where(jnp.isfinite(logps), jnp.exp(logps) * logps, 0.0), -1)
    return jnp.take_along_axis(logps, targets[..., None], -1)[..., 0], entropy, logps


def _expected(weights: Array, head: Array) -> Array:
    """sum_v weights[..., v] W_v, float32[R, C, D]."""
    weights = weights.astype(head.dtype)
    return jnp.einsum("rpv,vd->rpd", weights, head, preferred_element_type=jnp.float32)


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
