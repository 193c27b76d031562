"""What the programs of the stages cost at least, on each chip: floating point operations and bytes
to and from its memory.

Derived from the shapes: XLA's own analysis counts the body of a loop once. A test holds this to it
for programs whose loops run once.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from malt_jax.config.lora import LoraSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.learn import flops
from malt_jax.learn.phases.phase import Phase
from malt_jax.learn.steps import rows as batch_shards
from malt_jax.models import kv_cache, lora
from malt_jax.models.config import LlamaConfig
from malt_jax.plan.programs import Packed, Pass


@dataclass(frozen=True)
class Cost:
    """What one run of a program costs a chip."""

    flops: float
    bytes: float


def body(config: LlamaConfig) -> int:
    """Weights of all layers' projections."""
    sizes = (lora.sizes(config, target) for target in lora.TARGETS)
    return config.num_layers * sum(fan_in * fan_out for fan_in, fan_out in sizes)


def head(config: LlamaConfig) -> int:
    """Weights of the head."""
    return config.vocab_size * config.hidden_size


def low_rank(config: LlamaConfig, shape: LoraSettings) -> int:
    """Weights of one adapter."""
    sizes = (sum(lora.sizes(config, target)) for target in shape.targets)
    return config.num_layers * shape.rank * sum(sizes)


def attention(config: LlamaConfig) -> int:
    """Operations a pair of query and key, forwards."""
    return 4 * config.num_layers * config.num_heads * config.head_dim


def decode(
    config: LlamaConfig, dtype: Any, shape: LoraSettings, mesh: Mesh, of: Pass, context: int
) -> Cost:
    """One step of `of.rows` rows a shard, each `context` tokens into its sequence. Weights are read
    once and every page in use once for all its readers."""
    tokens, item = of.rows, jnp.dtype(dtype).itemsize
    tensor, adapters = mesh.shape["tensor"], of.adapters * low_rank(config, shape)
    work = 2 * tokens * (body(config) + head(config) + adapters)
    work += tokens * context * attention(config)
    read = item * (body(config) + head(config)) / tensor + 4 * adapters / tensor
    page = kv_cache.page_bytes(config, mesh, of.size, jnp.dtype(dtype))
    return Cost(work / tensor, read + page * sum(of.pages))


def prefill(
    config: LlamaConfig,
    dtype: Any,
    shape: LoraSettings,
    mesh: Mesh,
    of: Pass,
    tokens: int,
    context: int,
) -> Cost:
    """One pass over `tokens` prompt tokens a shard, each `context` tokens into its prompt. Of the
    last layer nothing is needed beyond its keys and values, which are left out here."""
    item, tensor = jnp.dtype(dtype).itemsize, mesh.shape["tensor"]
    used = replace(config, num_layers=config.num_layers - 1)
    adapters = of.adapters * low_rank(used, shape)
    work = 2 * tokens * (body(used) + adapters) + tokens * context * attention(used)
    return Cost(work / tensor, (item * body(used) + 4 * adapters) / tensor)


def train(
    config: LlamaConfig,
    dtype: Any,
    shape: LoraSettings,
    mesh: Mesh,
    phase: Phase[Any],
    settings: PhaseSettings,
    packed: Packed,
    lengths: tuple[int, int],
) -> Cost:
    """One optimiser step. Each of its examples has a prompt and completions of `lengths`.

    The matrices are read once forwards, once backwards, and once more if all of a layer is computed
    again; what a layer keeps is written and read.
    """
    examples, (prompt, completion) = packed.examples * packed.accumulate, lengths
    prompts = np.full(examples, prompt)
    completions = np.full((examples, phase.branches), completion)
    work = flops.training_flops(config, prompts, completions)
    computed = examples * (prompt + completion * phase.branches)
    work += 6 * computed * low_rank(config, shape)
    again = settings.remat == "keep_inputs"
    work += 2 * computed * body(config) if again else 0
    item, tensor = jnp.dtype(dtype).itemsize, mesh.shape["tensor"]
    read = packed.accumulate * item * ((3 if again else 2) * body(config) + 2 * head(config))
    kept = 0 if again else 2 * item * computed * kept_a_token(config) / batch_shards(mesh)
    optimiser = 7 * 4 * low_rank(config, shape) / mesh.size  # gradient, weights, two moments
    return Cost(work / mesh.size, (read + kept) / tensor + optimiser)


def kept_a_token(config: LlamaConfig) -> int:
    """Numbers a token that `keep_products` keeps: the outputs of every layer's products."""
    outs = sum(lora.sizes(config, target)[1] for target in lora.TARGETS)
    return config.num_layers * (outs + config.num_heads * config.head_dim + config.hidden_size)
