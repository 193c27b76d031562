"""The optimiser steps of a job on its chips."""

import jax.numpy as jnp

from malt_jax.config.settings import Settings
from malt_jax.learn.logprobs import CHUNK
from malt_jax.learn.phases import PHASES
from malt_jax.models import kv_cache
from malt_jax.plan import costs, programs, workload
from malt_jax.plan.line import Line, Target, compiled, line
from malt_jax.plan.programs import Packed


def packed(settings: Settings, name: str, shards: int, context: int) -> Packed:
    """A micro-batch of a phase, every example as long as the longest."""
    phase, chosen = PHASES[name], settings.phases[name]
    prompt, completion = workload.lengths(settings, name, context)
    predicted = completion * phase.branches
    per_row = -(-chosen.batch // shards)
    length, predictions = (
        8 * -(-per_row * tokens // 8) for tokens in (prompt + predicted, predicted)
    )
    return Packed(length, predictions, chosen.batch, chosen.accumulate)


def least(target: Target, settings: Settings, name: str) -> float:
    """Bytes below which no step of a phase gets on a chip: what it is given and what its layers
    keep."""
    mesh, chosen = target.mesh(settings), settings.phases[name]
    given = programs.weights(target.config, target.dtype, mesh)
    state = programs.state(target.config, settings.lora, chosen, mesh)
    of = packed(settings, name, kv_cache.shards_of(mesh), target.config.context)
    item = jnp.dtype(target.dtype).itemsize
    kept = costs.kept_a_token(target.config) / mesh.shape["tensor"]
    if chosen.remat == "keep_inputs":
        kept = target.config.num_layers * target.config.hidden_size
    return programs.bytes_on_a_chip((given, state)) + item * of.length * kept


def train_line(target: Target, settings: Settings, name: str) -> Line:
    """The optimiser step of a phase."""
    mesh, chosen = target.mesh(settings), settings.phases[name]
    config, dtype, shape = target.config, target.dtype, settings.lora
    of = packed(settings, name, kv_cache.shards_of(mesh), target.config.context)
    given = {
        "weights": programs.bytes_on_a_chip(programs.weights(config, dtype, mesh)),
        "adapters": programs.bytes_on_a_chip(programs.adapter(config, shape, mesh)),
    }
    state = programs.bytes_on_a_chip(programs.state(config, shape, chosen, mesh))
    given["optimiser"] = state - given["adapters"]
    lengths = workload.lengths(settings, name, config.context)
    cost = costs.train(config, dtype, shape, mesh, PHASES[name], chosen, of, lengths)
    title = f"train {name}"
    footprint = None
    if least(target, settings, name) <= target.chip.memory:
        build = programs.train(
            dtype, shape, mesh, PHASES[name], chosen, of, settings.sample_of_trees
        )
        footprint = compiled(title, config, build, -(-of.predictions // CHUNK))
    return line(title, given, footprint, cost, target.chip)
