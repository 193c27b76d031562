"""Log-probabilities of completions under a model and an adapter: what every training loss is made
of."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from malt_jax.batches import Batch
from malt_jax.losses import token_logprobs
from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params

_CHUNK = 64  # positions whose logits exist at a time


def completion_logprobs(
    config: LlamaConfig,
    params: Params,
    adapter: Adapter | None,
    batch: Batch,
    *,
    remat: bool = False,
) -> tuple[Array, Array]:
    """Log-probabilities float32[B, W] of the completions' tokens, and their mask bool[B, W].

    Only hidden states that predict a completion token meet the head, a chunk of positions at a
    time and recomputed in the backward pass: no array is [tokens, vocabulary].
    """
    tokens = jnp.asarray(batch.tokens)
    ends = batch.prompts + batch.completions
    hidden, _ = llama.forward(
        config, params, tokens, jnp.arange(tokens.shape[1]) < ends[:, None], adapter, remat=remat
    )
    offsets = jnp.arange(batch.width + (-batch.width % _CHUNK))
    places = jnp.minimum(batch.prompts[:, None] + offsets, tokens.shape[1] - 1)
    targets = jnp.take_along_axis(tokens, places, 1)
    hidden = jnp.take_along_axis(hidden, places[..., None] - 1, 1)

    @jax.checkpoint
    def score(chunk: tuple[Array, Array]) -> Array:
        return token_logprobs(llama.unembed(config, params, chunk[0]), chunk[1])

    def chunked(x: Array) -> Array:
        return x.reshape(x.shape[0], -1, _CHUNK, *x.shape[2:]).swapaxes(0, 1)

    logps = jax.lax.map(score, (chunked(hidden), chunked(targets)))
    logps = logps.swapaxes(0, 1).reshape(tokens.shape[0], -1)[:, : batch.width]
    return logps, offsets[: batch.width] < batch.completions[:, None]


@partial(jax.jit, static_argnames="config")
def sequence_logprobs(
    config: LlamaConfig, params: Params, adapter: Adapter | None, batch: Batch
) -> Array:
    """log pi(completion | prompt), summed over tokens: float32[B] (0 for padding)."""
    logps, mask = completion_logprobs(config, params, adapter, batch)
    return jnp.sum(jnp.where(mask, logps, 0.0), -1)
