"""The optimiser steps of a job on its chips."""

import jax.numpy as jnp

from malt_jax.config.settings import PhaseSettings, Settings
from malt_jax.learn.logprobs import CHUNK
from malt_jax.models import paged
from malt_jax.plan import costs, programs, workload
from malt_jax.plan.line import Line, Target, compiled, line
from malt_jax.plan.programs import Packed


def packed(settings: Settings, phase: PhaseSettings, name: str, shards: int) -> Packed:
    """A micro-batch of a phase, every example as long as the longest."""
    prompt, completion = workload.lengths(settings, name)
    said = completion * programs.branches(phase)
    per_row = -(-phase.batch // shards)
    length, predictions = (8 * -(-per_row * tokens // 8) for tokens in (prompt + said, said))
    return Packed(length, predictions, phase.batch, phase.accumulate)


def least(target: Target, settings: Settings, name: str) -> float:
    """Bytes below which no step of a phase gets on a chip: what it is given and what its layers
    keep."""
    mesh, phase = target.mesh(settings), settings.phase(name)
    given = programs.weights(target.config, target.dtype, mesh)
    state = programs.state(target.config, settings.lora, phase, mesh)
    of = packed(settings, phase, name, paged.shards_of(mesh))
    item = jnp.dtype(target.dtype).itemsize
    kept = costs.kept_a_token(target.config) / mesh.shape["tensor"]
    if phase.remat == "keep_inputs":
        kept = target.config.num_layers * target.config.hidden_size
    return programs.bytes_on_a_chip((given, state)) + item * of.length * kept


def train_line(target: Target, settings: Settings, name: str) -> Line:
    """The optimiser step of a phase."""
    mesh, phase = target.mesh(settings), settings.phase(name)
    config, dtype, shape = target.config, target.dtype, settings.lora
    of = packed(settings, phase, name, paged.shards_of(mesh))
    given = {
        "weights": programs.bytes_on_a_chip(programs.weights(config, dtype, mesh)),
        "adapters": programs.bytes_on_a_chip(programs.adapter(config, shape, mesh)),
    }
    state = programs.bytes_on_a_chip(programs.state(config, shape, phase, mesh))
    given["optimiser"] = state - given["adapters"]
    lengths = workload.lengths(settings, name)
    cost = costs.train(config, dtype, shape, mesh, phase, of, lengths)
    title = f"train {name}"
    found = None
    if least(target, settings, name) <= target.chip.memory:
        build = programs.train(dtype, shape, mesh, phase, of)
        found = compiled(title, config, build, -(-of.predictions // CHUNK))
    return line(title, given, found, cost, target.chip)
