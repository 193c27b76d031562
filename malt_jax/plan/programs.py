"""The programs of the stages, compiled ahead of time for chips that are not here.

Layers are written out one after another, so what a program needs grows by the same amount with
each: it is compiled with `DEPTHS` layers and extended in a straight line to the model's own. The
tests hold the line to a program of full depth.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from malt_jax.config.lora import LoraSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.settings import SampleSettings
from malt_jax.learn import steps
from malt_jax.learn.packing import Batch, Examples
from malt_jax.learn.phases.phase import Phase, StepData, ragged
from malt_jax.models import kv_cache, llama, lora, paged
from malt_jax.models.attention import implementation, writers
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter
from malt_jax.plan.collectives import traffic
from malt_jax.runtime import mesh as meshes
from malt_jax.sampler import Sampling, schedule
from malt_jax.sampler.programs import Fixed, programs
from malt_jax.sampler.spec import prefill_sizes

DEPTHS = (2, 4)
_UPDATES = 1000  # of the schedule; no size depends on it
Build = Callable[[LlamaConfig], Any]
"""From a model, of whatever depth, to a lowered program."""


@dataclass(frozen=True)
class Footprint:
    """What a program takes on each chip."""

    arguments: float  # bytes that it is given: weights, adapters, state, pools, batches
    temporaries: float  # bytes that it takes beside them, results that replace no argument included
    traffic: Mapping[str, float]  # bytes sent to other chips in one run, by kind of collective

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.arguments + self.temporaries


@dataclass(frozen=True)
class Pass:
    """A pass of the sampler: what its shapes follow from, of each shard."""

    rows: int
    pages: tuple[int, int]  # of the decode pools: prompts', rows' own
    prompt_pages: int
    columns: int  # pages of a row at most
    readers: int
    size: int  # tokens of a page
    adapters: int  # stacked


@dataclass(frozen=True)
class Packed:
    """A micro-batch of training: rows of `length` tokens with `predictions` each, `examples` in
    all. There are `accumulate` of them in an optimiser step."""

    length: int
    predictions: int
    examples: int
    accumulate: int


def footprint(config: LlamaConfig, build: Build, unknown_trips: int = 1) -> Footprint:
    """What `build`'s program takes for the whole model, from those of `DEPTHS` layers.

    Loops of which the program does not say how often they run count `unknown_trips` times in the
    traffic. Raises what the compiler raises where even so few layers do not fit a chip.
    """
    if config.num_layers <= DEPTHS[-1]:
        return compiled(build(config), unknown_trips)

    def at(depth: int) -> Footprint:
        return compiled(build(replace(config, num_layers=depth)), unknown_trips)

    with ThreadPoolExecutor() as threads:  # the compiler lets go of the interpreter
        low, high = threads.map(at, DEPTHS)
    more = (config.num_layers - DEPTHS[-1]) / (DEPTHS[-1] - DEPTHS[0])

    def extended(a: float, b: float) -> float:
        return b + more * (b - a)

    kinds = {*low.traffic, *high.traffic}
    return Footprint(
        extended(low.arguments, high.arguments),
        extended(low.temporaries, high.temporaries),
        {k: extended(low.traffic.get(k, 0.0), high.traffic.get(k, 0.0)) for k in sorted(kinds)},
    )


def compiled(lowered: Any, unknown_trips: int = 1) -> Footprint:
    """What one program takes, as its compiler says."""
    program = lowered.compile()
    memory = program.memory_analysis()
    beside = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    beside += memory.output_size_in_bytes - memory.alias_size_in_bytes
    sent = traffic(program.as_text(), unknown_trips)
    return Footprint(float(memory.argument_size_in_bytes), float(beside), sent)


@lru_cache
def weights(config: LlamaConfig, dtype: Any, mesh: Mesh) -> Any:
    """The base's parameters as shapes on the mesh."""
    return meshes.abstract(mesh, llama.param_shapes(config, dtype))


@lru_cache
def adapter(config: LlamaConfig, shape: LoraSettings, mesh: Mesh) -> Adapter:
    """One role's adapter as shapes on the mesh."""
    init = partial(lora.init, config, rank=shape.rank, alpha=shape.alpha, targets=shape.targets)
    return meshes.abstract(mesh, jax.eval_shape(init, jax.random.key(0)))


@lru_cache
def state(config: LlamaConfig, shape: LoraSettings, settings: PhaseSettings, mesh: Mesh) -> Any:
    """The state of training as shapes on the mesh."""
    trained = adapter(config, shape, mesh)
    moments = jax.eval_shape(steps.optimiser(settings, _UPDATES).init, trained)
    return {"adapter": trained, "opt_state": meshes.abstract(mesh, moments)}


def bytes_on_a_chip(tree: Any) -> float:
    """Bytes that shapes with shardings take on one device."""
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def decode(dtype: Any, shape: LoraSettings, mesh: Mesh, of: Pass) -> Build:
    """The sampler's decoding pass. Its steps are a loop of unknown length: the traffic is that of
    one step."""

    def build(config: LlamaConfig) -> Any:
        platform = mesh.devices.flat[0].platform
        shards = [schedule.Shard(sum(of.pages))] * kv_cache.shards_of(mesh)
        plan = schedule.plan(shards, of.rows, of.pages, of.readers, of.columns, of.size)
        return programs(platform).decode.lower(
            _fixed(config, mesh),
            weights(config, dtype, mesh),
            *_stacked(config, shape, mesh, of.adapters),
            *(_pool(config, dtype, mesh, pages, of.size) for pages in of.pages),
            _rows(mesh, plan),
            jax.ShapeDtypeStruct((), jnp.int32),
            sampling=Sampling(0.7),
        )

    return build


def prefill(dtype: Any, shape: LoraSettings, mesh: Mesh, of: Pass) -> Build:
    """The sampler's widest prefill pass."""

    def build(config: LlamaConfig) -> Any:
        platform, shards = mesh.devices.flat[0].platform, kv_cache.shards_of(mesh)
        place = (shards, prefill_tiles(of))
        tokens, table = (np.zeros((*place, n), np.int32) for n in (of.size // 4, of.columns))
        per_tile = np.zeros(place, np.int32)
        tiles = paged.Tiles(tokens, per_tile, per_tile, table, np.int32(0))
        return programs(platform).prefill.lower(
            _fixed(config, mesh),
            weights(config, dtype, mesh),
            *_stacked(config, shape, mesh, of.adapters),
            _pool(config, dtype, mesh, of.prompt_pages, of.size),
            _rows(mesh, tiles),
            _rows(mesh, per_tile),
        )

    return build


def prefill_tiles(of: Pass) -> int:
    """Tiles of a shard in the widest prefill pass."""
    return prefill_sizes(of.rows, of.size // 4)[-1]


def train(
    dtype: Any,
    shape: LoraSettings,
    mesh: Mesh,
    phase: Phase[Any],
    settings: PhaseSettings,
    packed: Packed,
    sample: SampleSettings,
) -> Build:
    """An optimiser step of a phase, on samples that were drawn so."""

    def build(config: LlamaConfig) -> Any:
        begun = state(config, shape, settings, mesh)
        data = _step_data(phase, settings, packed, steps.rows(mesh))

        def spread(array: np.ndarray) -> Any:
            return _shaped(mesh, array.shape, array.dtype, (None, "batch", None))

        def whole(array: np.ndarray) -> Any:
            return _shaped(mesh, array.shape, array.dtype, (None,) * array.ndim)

        step = steps.training(
            config,
            steps.optimiser(settings, _UPDATES),
            phase.loss(settings),
            begun,
            remat=settings.remat,
            drawn=phase.drawn(settings, sample),
        )
        return step.lower(  # type: ignore[attr-defined]
            weights(config, dtype, mesh),
            begun,
            jax.tree.map(spread, data.batch),
            jax.tree.map(whole, phase.extra(data)),
        )

    return build


def _step_data(phase: Phase[Any], settings: PhaseSettings, packed: Packed, rows: int) -> StepData:
    """A step's data in its shapes: all of it is padding."""
    many = packed.accumulate
    order = np.full((many, rows, -(-packed.examples // rows)), -1, np.int32)
    tokens = np.zeros((many, rows, packed.length), np.int32)
    predicted = np.zeros((many, rows, packed.predictions), np.int32)
    sequences = order[0].size * phase.branches
    padding = np.full_like(predicted, sequences)
    batch = Batch(tokens, tokens, tokens, tokens, predicted, predicted, padding, sequences)
    lengths = np.ones((1, 1 + phase.branches), np.int32)
    blank = Examples(lengths[0], np.array([0, lengths.size]), lengths[:, 0], lengths[:, 1:])
    row = {column.name: _blank(column.type) for column in phase.schema}
    arrays = phase.arrays([row], settings)
    if phase.needs_reference:
        arrays["reference"] = lengths[:, 1:].astype(np.float32)
    if phase.needs_base(settings):
        arrays["base"] = ragged([lengths[0, 1:]])
    return StepData(order, blank, arrays, batch)


def _blank(kind: pa.DataType) -> Any:
    """A value of a column of that type."""
    return [_blank(kind.value_type)] if pa.types.is_list(kind) else pa.scalar(0).cast(kind).as_py()


def _fixed(config: LlamaConfig, mesh: Mesh) -> Fixed:
    platform = mesh.devices.flat[0].platform
    return Fixed(config, mesh, implementation(platform), writers(platform), (0, 1), 2)


def _stacked(config: LlamaConfig, shape: LoraSettings, mesh: Mesh, many: int) -> tuple[Any, Any]:
    """The roles' adapters side by side, and their gates."""
    if not many:
        return None, None
    role = adapter(config, shape, mesh)
    stacked = jax.eval_shape(lambda: lora.stack([jax.tree.map(_zeros, role)] * many))
    ranks = jax.ShapeDtypeStruct((many, many * shape.rank), jnp.float32)
    return meshes.abstract(mesh, stacked), ranks


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(leaf.shape, leaf.dtype)


def _pool(config: LlamaConfig, dtype: Any, mesh: Mesh, pages: int, size: int) -> kv_cache.Pool:
    shape, axes = kv_cache.pool_shapes(config, mesh, pages, size), kv_cache.POOL_AXES

    def of(sizes: tuple[int, ...]) -> Any:
        return _shaped(mesh, sizes, dtype, axes)

    return [(of(shape[0]), of(shape[1])) for _ in range(config.num_layers)]


def _rows(mesh: Mesh, tree: Any) -> Any:
    """Host arrays as the sampler places them: their leading axis over the shards."""

    def of(x: Any) -> jax.ShapeDtypeStruct:
        x = np.asarray(x)
        axes = ("batch", *[None] * (x.ndim - 1)) if x.ndim else ()
        return _shaped(mesh, x.shape, x.dtype, axes)

    return jax.tree.map(of, tree)


def _shaped(
    mesh: Mesh, sizes: tuple[int, ...], dtype: Any, axes: Sequence[str | None]
) -> jax.ShapeDtypeStruct:
    """An array on the mesh, by its logical axes."""
    return jax.ShapeDtypeStruct(sizes, dtype, sharding=meshes.sharding(mesh, sizes, axes))
