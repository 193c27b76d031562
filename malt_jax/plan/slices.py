"""Names of TPU slices: by their layout, as in `v5e:2x4`, or by their size, as clouds do.

The size in `v5p-8` and `v4-8` counts TensorCores, of which a chip has two; in `v5litepod-8`,
`v5e-8` and `v6e-8` it counts chips (cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from malt_jax.config.names import closest


@dataclass(frozen=True)
class Generation:
    """How slices of a generation are named and laid out."""

    axes: int  # of the torus
    cores: int  # of a chip, as a size counts them
    most: int  # chips of the largest slice
    options: tuple[tuple[str, Any], ...] = ()  # of libtpu

    @property
    def sizes(self) -> list[int]:
        """Chips of the slices that clouds name by size."""
        powers = [2**i for i in range(2, self.most.bit_length())]
        return [1, *powers] if self.axes == 2 else powers


_GENERATIONS = {
    # Without `megacore` each of a chip's two cores would be a device.
    "v4": Generation(3, 2, 4096, (("chip_config_name", "megacore"),)),
    "v5e": Generation(2, 1, 256),
    "v5p": Generation(3, 2, 8960),
    "v6e": Generation(2, 1, 256),
}
_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "trillium": "v6e"}
_LAYOUTS = ("v5e:1x1", "v5e:2x4", "v5p:2x2x1", "v6e:2x4", "v4:2x2x1")
_SIZES = ("v5litepod-8", "v5e-8", "v5p-8", "v4-8")

_LAYOUT = re.compile(r"([a-z]+\d\w*?|[a-z]+)[:=_-](\d+(?:x\d+)+)")
_SIZE = re.compile(r"([a-z]+\d\w*?|[a-z]+)[:=_-](\d+)")


@dataclass(frozen=True)
class Slice:
    """A slice as libtpu takes it."""

    generation: str
    shape: tuple[int, ...]  # chips along each axis

    @property
    def name(self) -> str:
        """As in `v5e:2x4`."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def options(self) -> dict[str, Any]:
        """What libtpu is told beside the name. Hosts have chips in squares of two by two unless an
        axis is a single chip long."""
        bounds = [1 if size == 1 else 2 for size in self.shape[:2]]
        return {
            "chips_per_host_bounds": [*bounds, 1],
            **dict(_GENERATIONS[self.generation].options),
        }


def named(name: str) -> Slice:
    """The slice of a name. Raises ValueError, with the name that was probably meant or the sizes
    there are, for one that is not known."""
    text = name.strip().lower()
    match = _LAYOUT.fullmatch(text) or _SIZE.fullmatch(text)
    generation = _ALIASES.get(match[1], match[1]) if match else ""
    if match is None or generation not in _GENERATIONS:
        close = closest(text, (*_LAYOUTS, *_SIZES))
        raise unknown(name, f"did you mean {close}? " if close else "")
    sizes = tuple(map(int, match[2].split("x")))
    shape = sizes if len(sizes) > 1 else _shape(name, generation, sizes[0])
    facts = _GENERATIONS[generation]
    if len(shape) > facts.axes:
        raise unknown(name, f"{generation} has {facts.axes} axes; ")
    if not 0 < math.prod(shape) <= facts.most:
        raise unknown(name, f"{generation} has 1 to {facts.most} chips; ")
    if any(size > 1 and size % 2 for size in shape[:2]):
        raise unknown(name, "hosts have their chips in squares of two by two; ")
    return Slice(generation, shape)


def unknown(name: str, why: str) -> ValueError:
    """The refusal of a name; `why` is a clause with what follows it, or empty."""
    return ValueError(
        f"--topology={name}: not known; {why}a name is a generation and the chips along each axis "
        f"({', '.join(_LAYOUTS)}), or a cloud's size ({', '.join(_SIZES)})"
    )


def _shape(name: str, generation: str, size: int) -> tuple[int, ...]:
    """Chips along each axis of a slice of that size: powers of two, the larger ones last."""
    facts = _GENERATIONS[generation]
    chips, rest = divmod(size, facts.cores)
    if rest or chips not in facts.sizes:
        sizes = ", ".join(str(facts.cores * chips) for chips in facts.sizes)
        raise unknown(name, f"{generation} comes in sizes of {sizes}; ")
    if chips == 4:
        return (2, 2, 1)[: facts.axes]
    doublings = chips.bit_length() - 1
    return tuple(2 ** ((doublings + axis) // facts.axes) for axis in range(facts.axes))
