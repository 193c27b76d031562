"""What there is to plan for, and a program on it: its memory, its cost and its time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from absl import logging

from malt_jax.config.settings import Settings
from malt_jax.models.config import LlamaConfig
from malt_jax.plan import programs
from malt_jax.plan.costs import Cost
from malt_jax.plan.programs import Footprint
from malt_jax.plan.topology import Chip
from malt_jax.runtime import mesh as meshes


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


def compiled(
    name: str, config: LlamaConfig, build: programs.Build, unknown_trips: int = 1
) -> Footprint | None:
    """What a program takes; None if the compiler finds that it does not fit."""
    logging.info("compiling %s", name)
    try:
        return programs.footprint(config, build, unknown_trips)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        logging.info("%s", str(error).splitlines()[0][:200])
        return None


def line(
    name: str, given: dict[str, float], takes: Footprint | None, cost: Cost, chip: Chip
) -> Line:
    """The line of a program that is given those bytes; `takes` is None where it does not fit."""
    if takes is None:
        return Line(name, given, None, {}, cost, chip)
    # What the compiler adds to its arguments: batches, and the padding of narrow matrices.
    rest = {"batch": max(takes.arguments - sum(given.values()), 0.0)}
    return Line(name, {**given, **rest}, takes.temporaries, takes.traffic, cost, chip)
