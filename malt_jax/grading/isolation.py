"""Grading where it can be stopped: in a process of its own, within limits of time and memory.

A completion may be a bomb (a power tower, a factorial, a text on which a pattern runs for hours).
A process grades one sample after another. When a sample uses up its time, or ends the process in
another way, its verdict is "unknown" and the next sample gets a new process. Time is the process's
own CPU time, so that a busy machine does not change verdicts; a grader that waits without
computing is ended by the clock on the wall.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from malt_jax.grading.judge import Sample
from malt_jax.tasks import own
from malt_jax.tasks.task import Task
from malt_jax.types import Grade

CPU_SECONDS = 2.0
WALL_SECONDS = 10.0
PROGRAM_SECONDS = 40.0  # of a program, whose own limits are `sandbox`'s and `programs`'
START_SECONDS = 120.0  # imports of the grader on a busy machine
_STARTS = 3  # before it is said that it does not start

# What an interpreter needs to start and to find its files. A grader runs on what models write, so
# that nothing else of the environment, least of all a token or a key, is in its reach.
_NEEDED = {"PATH", "HOME", "LANG", "LANGUAGE", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"}
_NEEDED_PREFIXES = ("LC_", "PYTHON")
_ENDED: list[Any] = ["unknown", "", "", None, "time or memory used up"]


@dataclass
class Worker:
    """A grading process, or none where it has not been started or has ended. `warm` holds the
    warm-ups that it has done. Once `closed` it is not started again."""

    process: subprocess.Popen[bytes] | None = None
    warm: set[str] = field(default_factory=set)
    closed: bool = False


def described(task: Task, *, leniently: bool = False) -> dict[str, Any]:
    """How `worker` is told of a task: by the places of its functions.

    Raises:
        ValueError: if one of them has none that another process finds.
    """
    functions = {
        "rules": task.rules,
        "grade": task.grade,
        "program": task.program,
        "answer": task.answer,
        "warm_up": task.warm_up,
    }
    places = {name: own.spec(function) if function else "" for name, function in functions.items()}
    return {**places, "running": asdict(task.running), "leniently": leniently}


def grade(
    worker: Worker, how: Mapping[str, Any], samples: Sequence[Sample]
) -> Iterator[tuple[Grade, str]]:
    """The samples' grades in order, each with what kept it from being one, or "". `how` is a task
    as `described`.

    Raises:
        ValueError: if the task's rules do, for a reference answer that they cannot read.
        ChildProcessError: if the process does not start.
    """
    start = 0
    while start < len(samples):
        for verdict in _graded(worker, how, samples[start:]):
            start += 1
            yield verdict


def _graded(
    worker: Worker, how: Mapping[str, Any], samples: Sequence[Sample]
) -> Iterator[tuple[Grade, str]]:
    """Verdicts from one process; fewer than samples if it ended, the last of them "unknown"."""
    try:
        replies = _replies(worker, {**how, "cpu_seconds": CPU_SECONDS, "samples": samples})
        for index in range(len(samples)):
            reply = next(replies, _ENDED)
            status, answer, via, score, why = reply
            if status == "error":
                raise ValueError(why)
            if reply is _ENDED and how["grade"] and index == 0 and len(samples) > 1:
                break  # they were scored together: which of them ended it shows one by one
            yield Grade(status, answer, via, score), why
            if why:
                end(worker)  # a process that failed once may be short of memory, or dead
                return
        else:
            return
    except BaseException:
        end(worker)  # replies that nobody read are still under way
        raise
    end(worker)
    for sample in samples:
        yield from _graded(worker, how, [sample])


def _replies(worker: Worker, request: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Sends a request and yields the replies; ends where one does not come in time. A process that
    was killed or stopped while it waited for a request, or started, is replaced by a new one."""
    line = json.dumps(request).encode("ascii") + b"\n"
    warm_up, starts = request["warm_up"], 0
    while True:
        process = worker.process
        if process is None or process.poll() is not None:
            process = _start(worker)
            starts += 1
        later = PROGRAM_SECONDS if request["program"] else WALL_SECONDS
        seconds = later if warm_up in worker.warm else START_SECONDS
        replies = _exchange(process, line, seconds, later)
        if next(replies, None) == ["ready"]:
            worker.warm.add(warm_up)
            yield from replies
            return
        end(worker)
        if starts == _STARTS:
            raise ChildProcessError(
                f"the grading process ({sys.executable}) does not start: {_STARTS} ended, or were "
                "not ready in time; its own lines stand above. Free memory or processes, or mend "
                "the task's imports; what is committed is whole, and the same command goes on "
                "from it"
            )


def _exchange(
    process: subprocess.Popen[bytes], line: bytes, seconds: float, later: float
) -> Iterator[list[Any]]:
    """Sends a line and yields the replies. The first may take `seconds`, the others `later`."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)  # whoever stopped it, stopped it while it was idle
    requests, pending = process.stdin.fileno(), b""
    unsent = memoryview(line)
    while unsent:
        if not select.select([], [requests], [], seconds)[1]:
            return
        try:
            unsent = unsent[os.write(requests, unsent) :]
        except BrokenPipeError:
            return
    while True:
        deadline = time.monotonic() + seconds
        while b"\n" not in pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return
            received = os.read(process.stdout.fileno(), 1 << 16)
            if not received:
                return
            pending += received
        reply, _, pending = pending.partition(b"\n")
        yield json.loads(reply)
        seconds = later


def _start(worker: Worker) -> subprocess.Popen[bytes]:
    """A new process: not a fork, which would take JAX's threads' locks along, and in a session of
    its own, so that Ctrl-C reaches this process alone."""
    end(worker)
    if worker.closed:
        raise RuntimeError("grading is closed: the program ends")
    process = subprocess.Popen(
        [sys.executable, "-c", "from malt_jax.grading import worker; worker.main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    worker.process = process
    return process


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _NEEDED or name.startswith(_NEEDED_PREFIXES)
    }
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    # Sympy orders by hash in places: the same verdicts in every run. And an own grader's NumPy
    # would set memory aside for as many threads as there are cores.
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**kept, **fixed, "PYTHONPATH": paths}


def end(worker: Worker) -> None:
    """Ends the process, if there is one."""
    process, worker.process = worker.process, None
    worker.warm.clear()
    if process is None:
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
