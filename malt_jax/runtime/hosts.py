"""The hosts of one job: how they find each other, who does what, and where they meet.

Each runs the same command over the same work directory, and JAX's distributed runtime connects
them. They share out the questions; what exists once is written by the first host. When one dies,
the runtime ends the others: after HEARTBEAT_SECONDS, or twice as many if they wait for it first.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import multihost

HEARTBEAT_SECONDS = 20
_LONGEST_WAIT_MS = 7 * 24 * 3600 * 1000  # a slow host is waited for; only a dead one ends a job
_MEETINGS = itertools.count()
_LETTERS = 8192  # of an error that is passed on

Item = TypeVar("Item")


def start(coordinator: str, processes: int, process: int) -> None:
    """Connects this process with the others of its job, before JAX is used for anything else.

    `coordinator` is the first one's HOST:PORT, `processes` their number and `process` this one's,
    from 0. Without a coordinator JAX looks for a cluster (Cloud TPU, GKE, SLURM, Open MPI,
    JAX_COORDINATOR_ADDRESS); where it finds none, or `processes` is 1, this process is the whole
    job. Raises ValueError if the three do not go together, and if the cluster does not answer (a
    pod without a token, a TPU machine without its metadata).
    """
    # In SLURM, JAX would leave a single task with one GPU of those that it was given.
    if not coordinator and (processes == 1 or os.environ.get("SLURM_NTASKS") == "1"):
        return
    if coordinator and not 0 <= process < processes:
        raise ValueError(
            f"--coordinator={coordinator} --processes={processes} --process={process}: give the "
            "number of processes, and each its own number from 0"
        )
    # Waiting for a notice of preemption, JAX would keep SIGTERM from ending the process. What was
    # done is on disk.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator or None,
            processes if coordinator else None,
            process if coordinator else None,
            cluster_detection_method="deactivate" if coordinator else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:  # of a cluster's own client, and not one class of all
        if not coordinator and "coordinator_address" in str(error):
            return
        if isinstance(error, ValueError) and coordinator:
            raise
        raise ValueError(
            f"this process looks like one of several, and the others cannot be found "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); give each "
            "--coordinator=HOST:PORT --processes=N --process=I, or --processes=1 to this one if it "
            "is the whole job"
        ) from error


def several() -> bool:
    """Whether this job has more than one host."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """Whether this host writes what exists once."""
    return not several() or jax.process_index() == 0


def meet() -> None:
    """Waits for the other hosts, which call this as often and in the same order."""
    if several():
        # Not a collective of the devices, some of which give up after minutes.
        wait = multihost.get_barrier_sync_fn()
        wait(key=f"malt_jax {next(_MEETINGS)}", timeout_ms=_LONGEST_WAIT_MS)


def in_step(program: Any) -> Callable[..., Any]:
    """A program of `jax.jit` that all hosts run together, for arguments of one shape. They meet
    once it is compiled: a CPU's connections are made by its first collective, which waits for a
    slower host for half a minute only."""
    if not several():
        return cast(Callable[..., Any], program)
    compiled: list[Callable[..., Any]] = []

    def run(*arguments: Any) -> Any:
        if not compiled:
            compiled.append(program.lower(*arguments).compile())
            meet()
        return compiled[0](*arguments)

    return run


def by_first(work: Callable[[], object]) -> None:
    """Has the first host do something while the others wait for it. A ValueError that it raises
    there is raised on every host."""
    if not several():
        work()
        return
    error = ""
    if first():
        try:
            work()
        except ValueError as raised:
            error = str(raised) or repr(raised)
    meet()
    if message := _told(error):
        raise ValueError(message)


def from_first(work: Callable[[], str]) -> str:
    """What `work` gives on the first host, a short text, told to all of them. A ValueError is
    raised on every host."""
    if not several():
        return work()
    texts: list[str] = []
    by_first(lambda: texts.append(work()))
    return _told("".join(texts))


def _told(text: str) -> str:
    """The first host's text."""
    content = text.encode()[:_LETTERS].ljust(_LETTERS, b"\0")
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))
    return np.asarray(told).tobytes().rstrip(b"\0").decode(errors="ignore")


def same(content: bytes) -> bool:
    """Whether every host has the same content."""
    if not several():
        return True
    digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    everyone = multihost_utils.process_allgather(digest)
    return bool((everyone == everyone[0]).all())


def described(error: Exception) -> str:
    """An error in words; of several hosts, with the one that it met and the way on."""
    if not several():
        return str(error)
    return (
        f"host {jax.process_index()} of {jax.process_count()}: {error}\n"
        "If another host ended first, its log says why. The same command on every host goes on "
        "where this one stopped."
    )


def any_says(flag: bool) -> bool:
    """Whether any host says so."""
    if not several():
        return flag
    return bool(np.asarray(multihost_utils.process_allgather(np.bool_(flag))).any())


def least(value: float) -> float:
    """The smallest of all hosts' values, to the seven digits of a float32."""
    return float(multihost_utils.process_allgather(np.float32(value)).min())


@dataclass(frozen=True)
class Part:
    """The share of one host, or of hosts that work in step: every `count`-th item from `index`
    on."""

    index: int = 0
    count: int = 1
    writes: bool = True  # of hosts that work in step, one does

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """This share of the items."""
        return items[self.index :: self.count]


ALL = Part()


def part(mesh: Mesh) -> Part:
    """The share of the host whose devices are `mesh`. Hosts that have it in common work in
    step."""
    if mesh.is_multi_process:
        return Part(writes=first())
    return Part(jax.process_index(), jax.process_count())
