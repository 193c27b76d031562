"""Accelerators that are not here: their devices, to compile for, and what one chip can do."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax

from malt_jax.plan import slices
from malt_jax.runtime import peaks
from malt_jax.runtime.devices import quiet_libtpu

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
# a program does not fit: of 32, 16, 96 and 32 GiB a little is the system's own. Bandwidths are
# those of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; for the links half of "bidirectional
# inter-chip interconnect bandwidth per chip" (400, 1200 and 800 GB/s), as a chip sends and receives
# at once. For v4 they are the six links of 50 GB/s each way.
_FACTS = {
    "TPU v4": (30.75, 1228, 300),
    "TPU v5 lite": (15.75, 819, 200),
    "TPU v5": (95.74, 2765, 600),
    "TPU v6": (31.25, 1600, 400),
}


def devices(name: str) -> Sequence[jax.Device]:
    """The devices of a topology: `v5e:2x4`, `v5litepod-8`, `v5p:2x2x1`, ... Touches no accelerator.

    Raises ValueError if the compiler for TPUs is not installed or does not know the name.
    """
    chosen = slices.named(name)
    if find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={name}: the compiler for TPUs is not installed; "
            "pip install 'malt-jax[tpu]' (it needs no TPU)"
        )
    quiet_libtpu()
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no TPU to fight for
    from jax.experimental import topologies

    try:
        with _signals_kept():
            topology = topologies.get_topology_desc(
                platform="tpu", topology_name=chosen.name, **chosen.options
            )
    except Exception as error:  # of the runtime, and not one class in all versions
        raise slices.unknown(name, f"{str(error).splitlines()[0]}; ") from error
    return topology.devices


@contextmanager
def _signals_kept() -> Iterator[None]:
    """libtpu takes SIGTERM for a crash and prints stacks; what was to happen on it happens."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def chip(device: Any, dtype: Any) -> Chip:
    """What a device can do with numbers of `dtype`. Raises ValueError for a kind not known."""
    kind = device.device_kind
    kinds = [start for start in _FACTS if kind.startswith(start)]
    most = peaks.peak([device], dtype)
    if not kinds or most is None:
        raise ValueError(f"--topology: nothing is known of a {kind!r}; known: {sorted(_FACTS)}")
    memory, bandwidth, links = _FACTS[max(kinds, key=len)]
    return Chip(kind, memory * GIB, most, bandwidth * 1e9, links * 1e9)
