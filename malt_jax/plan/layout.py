"""One layout of a job on its chips: what each program takes, what it costs, and whether it fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from malt_jax import mesh as meshes
from malt_jax import roles
from malt_jax.models import paged
from malt_jax.models.config import LlamaConfig
from malt_jax.plan import costs, programs, workload
from malt_jax.plan.costs import Cost
from malt_jax.plan.programs import Footprint, Packed, Pass
from malt_jax.plan.topology import GIB, Chip
from malt_jax.sampler import schedule
from malt_jax.sampler.spec import Spec, memory, pages_needed
from malt_jax.settings import PhaseSettings, Settings

_CHUNK = 128  # predictions whose logits exist at a time: `policy`'s loop, whose length is not fixed


@dataclass(frozen=True)
class Target:
    """A model and the chips it is to run on."""

    config: LlamaConfig
    dtype: Any
    devices: Sequence[jax.Device]
    chip: Chip

    def mesh(self, settings: Settings) -> jax.sharding.Mesh:
        """The mesh that the settings ask for. Raises ValueError if the chips do not make it."""
        sizes = settings.mesh
        return meshes.make(sizes.data, sizes.fsdp, sizes.tensor, self.devices)


@dataclass(frozen=True)
class Line:
    """A program on each chip. Its memory is in bytes; `temporaries` None says that the compiler
    gave up, or was not asked, because what is given to the program alone is too much."""

    name: str
    memory: dict[str, float]  # weights, adapters, optimiser, cache, batch
    temporaries: float | None
    traffic: Mapping[str, float]
    cost: Cost
    chip: Chip

    @property
    def total(self) -> float:
        """Bytes in all; infinite if the compiler gave up."""
        beside = math.inf if self.temporaries is None else self.temporaries
        return sum(self.memory.values()) + beside

    @property
    def fits(self) -> bool:
        """Whether that is no more than a chip has."""
        return self.total <= self.chip.memory

    @property
    def seconds(self) -> dict[str, float]:
        """What the chip's arithmetic, its memory and its links need at least."""
        return {
            "compute": self.cost.flops / self.chip.flops,
            "memory": self.cost.bytes / self.chip.bandwidth,
            "links": sum(self.traffic.values()) / self.chip.links,
        }

    @property
    def step(self) -> float:
        """Seconds of a run that the roofline allows: all three at the same time."""
        return max(self.seconds.values())


@dataclass(frozen=True)
class Looked:
    """What was found of a layout."""

    settings: Settings
    lines: tuple[Line, ...]
    rows: int  # that find pages at the same time, over all chips
    most_rows: int  # that would, of the longest prompts and completions
    prefilled: int  # tokens of a prefill pass, over all chips
    failures: tuple[str, ...]  # empty if the layout fits

    def line(self, name: str) -> Line:
        """The line of a program."""
        return next(line for line in self.lines if line.name == name)


def look(target: Target, settings: Settings) -> Looked:
    """Compiles the programs of a layout and holds them against the chips."""
    sampling, most_rows, prefilled, failures = _sampling(target, settings)
    trained = [train_line(target, settings, name) for name in workload.phases(settings)]
    lines = (*sampling, *trained)
    failures += [_too_much(line) for line in lines if not line.fits]
    rows = min(most_rows, settings.sample.rows)
    return Looked(settings, lines, rows, most_rows, prefilled, tuple(failures))


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
        found = _compiled(title, config, build, -(-of.predictions // _CHUNK))
    return _line(title, given, found, cost, target.chip)


def _sampling(target: Target, settings: Settings) -> tuple[list[Line], int, int, list[str]]:
    """The sampler's two programs, the rows that find pages, the tokens of a prefill pass, and what
    is wrong beside memory."""
    mesh, config, dtype = target.mesh(settings), target.config, target.dtype
    many = len(settings.chain)
    params = programs.weights(config, dtype, mesh)
    given = {
        "weights": programs.bytes_on_a_chip(params),
        "adapters": many * programs.bytes_on_a_chip(programs.adapter(config, settings.lora, mesh)),
    }
    free = target.chip.memory - sum(given.values())
    granted = settings.sample.kv_gib * GIB or 0.6 * max(free, 0.0)
    most = max(*settings.branching, settings.eval.votes)
    spec = Spec(config, params, mesh, settings.sample.rows, (), 0, min(most, 4), granted / GIB)
    if granted < paged.page_bytes(config, mesh, spec.page_size, jnp.dtype(dtype)):
        return _not_compiled(given, target.chip), 0, 0, []
    pool, failures = memory(spec), []
    chain = roles.chain(settings)
    for role in chain:
        longest = workload.prompt(settings, role, settings.data.max_chars // workload.LETTERS)
        try:
            pool.check(spec, longest, role.max_new_tokens, most)
        except ValueError as error:
            failures.append(str(error))
    needs = [
        pages_needed(workload.prompt(settings, role), role.max_new_tokens, spec.page_size)
        for role in chain
    ]
    prompt_pages, own = (max(each) for each in zip(*needs, strict=True))
    fitting = int(pool.decode // (own + prompt_pages / spec.siblings)) * paged.shards_of(mesh)
    rows = spec.rows_a_shard
    if not fitting or failures:
        return _not_compiled(given, target.chip), fitting, 0, failures
    if fitting < settings.sample.rows:
        failures.append(
            f"config.sample.rows: {settings.sample.rows} rows of the longest prompts and "
            f"completions need more pages than the KV cache of {granted / GIB:.2f} GiB a chip has; "
            f"{fitting} rows fit"
        )
        rows = max(fitting // paged.shards_of(mesh), 1)
    groups = -(-rows // spec.siblings)
    pages = schedule.sizes(groups * prompt_pages, rows * own, pool.decode)
    size, adapters = spec.page_size, many
    columns = -(-config.context // size) + 1
    of = Pass(rows, pages, pool.prompts, columns, spec.siblings, size, adapters)
    in_use = Pass(rows, (groups * prompt_pages, rows * own), 0, columns, 0, size, adapters)
    context = max(workload.prompt(settings, role) + role.max_new_tokens // 2 for role in chain)
    tokens = programs.prefill_tiles(of) * size // 4
    shape, lines = settings.lora, []
    for name, build, cost, held in (
        (
            "decode",
            programs.decode(dtype, shape, mesh, of),
            costs.decode(config, dtype, shape, mesh, in_use, context),
            sum(pages),
        ),
        (
            "prefill",
            programs.prefill(dtype, shape, mesh, of),
            costs.prefill(config, dtype, shape, mesh, of, tokens, context // 2),
            pool.prompts,
        ),
    ):
        found = _compiled(name, config, build)
        parts = given | {"cache": held * pool.page_bytes}
        line = _line(name, parts, found, cost, target.chip)
        # Whatever a program is given of the cache, all of it lies there.
        lines.append(replace(line, memory=line.memory | {"cache": granted}))
    tokens *= paged.shards_of(mesh)
    return lines, fitting, tokens, failures


def _not_compiled(given: dict[str, float], chip: Chip) -> list[Line]:
    """The sampler's programs where the cache has no room for one row."""
    return [_line(name, given, None, Cost(0.0, 0.0), chip) for name in ("decode", "prefill")]


def _compiled(
    name: str, config: LlamaConfig, build: programs.Build, unknown_trips: int = 1
) -> Footprint | None:
    """None if the compiler finds that the program does not fit."""
    logging.info("compiling %s", name)
    try:
        return programs.footprint(config, build, unknown_trips)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        logging.info("%s", str(error).splitlines()[0][:200])
        return None


def _line(
    name: str, given: dict[str, float], found: Footprint | None, cost: Cost, chip: Chip
) -> Line:
    if found is None:
        return Line(name, given, None, {}, cost, chip)
    # What the compiler adds to its arguments: batches, and the padding of narrow matrices.
    rest = {"batch": max(found.arguments - sum(given.values()), 0.0)}
    return Line(name, {**given, **rest}, found.temporaries, found.traffic, cost, chip)


def _too_much(line: Line) -> str:
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in line.memory.items() if size)
    beside = "" if line.temporaries is None else f", temporaries {line.temporaries / GIB:.2f}"
    has = f"{line.chip.memory / GIB:.2f} GiB a chip"
    return f"{line.name}: {parts}{beside} GiB" + (
        f" are {line.total / GIB:.2f} of {has}"
        if line.temporaries is not None
        else f" leave too little of {has} for its temporaries"
    )
