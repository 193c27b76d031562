"""The nearest layout that fits, and the largest batch and rows of one that does."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from absl import logging

from malt_jax.config.settings import MeshSettings, Settings
from malt_jax.learn.phases import PHASES
from malt_jax.models import kv_cache
from malt_jax.plan import programs, workload
from malt_jax.plan.layout import Looked, look
from malt_jax.plan.line import Target
from malt_jax.plan.training import least, train_line

TRIES = 4  # layouts that are compiled at most


@dataclass(frozen=True)
class Proposal:
    """A layout that fits, and the flags that ask for it."""

    looked: Looked
    flags: tuple[str, ...]


def nearest(target: Target, settings: Settings) -> Proposal | None:
    """The layout fewest steps away that compiles and fits; None if none of the first `TRIES` does.

    A step moves a factor of two from one axis of the mesh to another, halves a micro-batch (and
    doubles `accumulate`: the optimiser step stays) or keeps less for the backward pass. Layouts
    that arithmetic rules out are not compiled.
    """
    for candidate in itertools.islice(_promising(target, settings), TRIES):
        looked = look(target, candidate)
        flags = _flags(settings, candidate)
        logging.info("%s: %s", " ".join(flags), "; ".join(looked.failures) or "fits")
        if not looked.failures:
            return Proposal(looked, flags)
        if 0 < looked.rows < candidate.sample.rows:
            fewer = replace(candidate, sample=replace(candidate.sample, rows=looked.rows))
            again = look(target, fewer)
            if not again.failures:
                return Proposal(again, _flags(settings, fewer))
    return None


def largest_batch(target: Target, looked: Looked, name: str) -> int:
    """The largest micro-batch of a phase, over all chips, that was compiled and fits.

    The size tried is the one with which all temporaries, were they to grow with it, would fill the
    chip. Some do not grow, so a few examples more may fit.
    """
    settings, line = looked.settings, looked.line(f"train {name}")
    shards, chosen = kv_cache.shards_of(target.mesh(settings)), settings.phases[name]
    begin = shards * -(-chosen.batch // shards)  # as many take no more: rows are as long
    growing = line.temporaries or math.inf
    factor = (target.chip.memory - line.total + growing) / growing
    batch = shards * int(begin * factor // shards)
    larger = {**settings.phases, name: replace(chosen, batch=batch)}
    if batch > begin and train_line(target, replace(settings, phases=larger), name).fits:
        return batch
    return begin


def _promising(target: Target, settings: Settings) -> Iterator[Settings]:
    """Other layouts, the nearest first, that arithmetic does not rule out."""
    now, chips = settings.mesh, len(target.devices)
    data = now.data or max(chips // (now.fsdp * now.tensor), 1)
    options = []
    for mesh in _meshes(chips):
        moved = _distance(mesh, replace(now, data=data))
        for halvings, remat in itertools.product(range(3), (False, True)):
            cost = moved + halvings + (1.5 if remat else 0)
            # Of two as near, the one that splits heads: decoding then gathers no weights.
            options.append((cost, -mesh.tensor, halvings, remat, mesh))
    for _, _, halvings, remat, mesh in sorted(options, key=lambda o: o[:4]):
        candidate = _changed(settings, mesh, halvings, remat)
        if candidate is None or candidate == replace(settings, mesh=replace(now, data=data)):
            continue
        if _possible(target, candidate):
            yield candidate


def _meshes(chips: int) -> Iterator[MeshSettings]:
    """All ways to share out the chips, in powers of two beside the data axis."""
    for fsdp, tensor in itertools.product((2**i for i in range(10)), repeat=2):
        if chips % (fsdp * tensor) == 0:
            yield MeshSettings(chips // (fsdp * tensor), fsdp, tensor)


def _distance(a: MeshSettings, b: MeshSettings) -> float:
    pairs = ((a.data, b.data), (a.fsdp, b.fsdp), (a.tensor, b.tensor))
    return sum(abs(math.log2(x) - math.log2(y)) for x, y in pairs) / 2


def _changed(settings: Settings, mesh: MeshSettings, halvings: int, remat: bool) -> Settings | None:
    """None where the micro-batches are too small for that."""
    changed = dict(settings.phases)
    for name, chosen in workload.phases(settings).items():
        small = chosen.batch % 2**halvings or chosen.batch // 2**halvings < mesh.data * mesh.fsdp
        if halvings and (small or not PHASES[name].accumulates):
            return None
        if remat and chosen.remat == "keep_inputs":
            return None
        changed[name] = replace(
            chosen,
            batch=chosen.batch // 2**halvings,
            accumulate=chosen.accumulate * 2**halvings,
            remat="keep_inputs" if remat else chosen.remat,
        )
    return replace(settings, mesh=mesh, phases=changed)


def _possible(target: Target, settings: Settings) -> bool:
    """Whether the weights leave a tenth of a chip, and every phase's least fits."""
    given = programs.weights(target.config, target.dtype, target.mesh(settings))
    room = 0.9 * target.chip.memory
    return programs.bytes_on_a_chip(given) < room and all(
        least(target, settings, name) < target.chip.memory for name in workload.phases(settings)
    )


def _flags(before: Settings, after: Settings) -> tuple[str, ...]:
    """The flags that turn one into the other."""
    flags = [
        f"--config.mesh.{axis}={getattr(after.mesh, axis)}"
        for axis in ("data", "fsdp", "tensor")
        # Data that was left to be the rest stays so.
        if getattr(before.mesh, axis) not in (0, getattr(after.mesh, axis))
    ]
    if after.sample.rows != before.sample.rows:
        flags.append(f"--config.sample.rows={after.sample.rows}")
    for name, chosen in workload.phases(after).items():
        for key in ("batch", "accumulate", "remat"):
            value = getattr(chosen, key)
            if value != getattr(before.phases[name], key):
                flags.append(f"--config.{name}.{key}={value}")
    return tuple(flags)
