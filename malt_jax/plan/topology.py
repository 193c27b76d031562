"""Accelerators that are not here: their devices, to compile for, and what one chip can do."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax

from malt_jax.runtime import peaks

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One device of a topology."""

    kind: str
    memory: float  # bytes that a program may use
    flops: float  # a second, dense, for the model's dtype
    bandwidth: float  # bytes a second to and from its memory
    links: float  # bytes a second that it can send to its neighbours, over all links


# By the start of `device_kind`: (GiB, GB/s, GB/s). The memory is what XLA calls available HBM when
# a program does not fit: of 16, 96 and 32 GiB a little is the system's own. Bandwidths are those of
# cloud.google.com/tpu/docs/{v5e,v5p,v6e}; for the links half of "bidirectional inter-chip
# interconnect bandwidth per chip" (400, 1200 and 800 GB/s), as a chip sends and receives at once.
_FACTS = {
    "TPU v5 lite": (15.75, 819, 200),
    "TPU v5": (95.74, 2765, 600),
    "TPU v6": (31.25, 1600, 400),
}


def devices(name: str) -> Sequence[jax.Device]:
    """The devices of a topology: `v5e:2x4`, `v5p:2x2x1`, `v6e:2x4`, ... Touches no accelerator.

    Raises ValueError if the compiler for TPUs is not installed or does not know the name.
    """
    if find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={name}: the compiler for TPUs is not installed; "
            "pip install 'malt-jax[tpu]' (it needs no TPU)"
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks no server what machine this is
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no TPU to fight for
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # of the runtime, and not one class in all versions
        raise ValueError(
            f"--topology={name!r}: not known ({error}); a name is a generation and the chips along "
            "each axis: v5e:2x4, v5p:2x2x1, v6e:2x4"
        ) from error
    return topology.devices


def chip(device: Any, dtype: Any) -> Chip:
    """What a device can do with numbers of `dtype`. Raises ValueError for a kind not known."""
    kind = device.device_kind
    known = [start for start in _FACTS if kind.startswith(start)]
    most = peaks.peak([device], dtype)
    if not known or most is None:
        raise ValueError(f"--topology: nothing is known of a {kind!r}; known: {sorted(_FACTS)}")
    memory, bandwidth, links = _FACTS[max(known, key=len)]
    return Chip(kind, memory * GIB, most, bandwidth * 1e9, links * 1e9)
