"""Grading where it can be stopped: in a process of its own, within limits of time and memory.

A completion may be a bomb (a power tower, a factorial, a text on which a pattern runs for hours).
One process grades everything, started with the first grading and kept. When a sample uses up its
time, or ends the process in another way, its verdict is "unknown" and the next sample gets a new
process. Time is the process's own CPU time, so that a busy machine does not change verdicts; a
grader that waits without computing is ended by the clock on the wall.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from absl import logging

from malt_jax.tasks.task import Choices, Task
from malt_jax.types import Grade

CPU_SECONDS = 2.0
WALL_SECONDS = 10.0
START_SECONDS = 120.0  # imports of the grader on a busy machine
# Every rule looks for the last mark, number or statement, so the end of a text has the verdict of
# the whole. Longer than any completion a model writes within its limit of tokens.
MAX_CHARACTERS = 100_000
_BATCH = 64  # samples sent at once: enough to spread the cost of a message


class Sample(NamedTuple):
    """What `Task.grade` is given."""

    completion: str
    answer: str
    truncated: bool = False
    choices: Choices = ()


def grade(task: Task, samples: Sequence[Sample], *, leniently: bool = False) -> list[Grade]:
    """The samples' grades, in their order, as `Task.grade` or `Task.lenient` gives them; "unknown"
    for one that could not be graded within CPU_SECONDS, WALL_SECONDS and the worker's memory. Any
    thread may call it.

    Raises:
        ValueError: if the task's rules do, for a reference answer it cannot read.
        RuntimeError: if the grading process does not start.
    """
    how = {"rules": _path(task.rules), "warm_up": _path(task.warm_up), "leniently": leniently}
    found: list[Grade] = []
    with _LOCK:
        while len(found) < len(samples):
            batch = samples[len(found) : len(found) + _BATCH]
            for verdict, why in _grade_batch(how, batch):
                if why:
                    text = samples[len(found)].completion
                    logging.warning("not graded (%s): ...%r", why, text[-80:])
                found.append(verdict)
    return found


def close() -> None:
    """Ends the process, if there is one; the next grading starts another."""
    with _LOCK:
        _end()


_LOCK = threading.RLock()
_PROCESSES: list[subprocess.Popen[bytes]] = []  # one or none


def _grade_batch(how: dict[str, Any], batch: Sequence[Sample]) -> Iterator[tuple[Grade, str]]:
    """Verdicts, each with what kept it from being one or ""; fewer than samples if the process
    ended, the last of them "unknown"."""
    rows = [(s.completion[-MAX_CHARACTERS:], *s[1:]) for s in batch]
    request = json.dumps({**how, "cpu_seconds": CPU_SECONDS, "samples": rows})
    try:
        replies = _exchange(request)
        if next(replies, None) != ["ready"]:
            raise RuntimeError(f"the grading process ({sys.executable}) does not start")
        for _ in batch:
            status, answer, via, why = next(replies, None) or _ENDED
            if status == "error":
                raise ValueError(why)
            yield Grade(status, answer, via), why
            if why:
                break
        else:
            return
    except BaseException:
        _end()  # replies that nobody read are still under way
        raise
    _end()  # a process that failed once may be short of memory, or dead


_ENDED: list[Any] = ["unknown", "", "", "time or memory used up"]


def _exchange(request: str) -> Iterator[list[Any]]:
    """Sends one request and yields the replies, the first of which may take longer; ends where
    none comes in time."""
    worker = _PROCESSES[0] if _PROCESSES and _PROCESSES[0].poll() is None else _start()
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):
        worker.stdin.write(request.encode("ascii") + b"\n")
        worker.stdin.flush()
    pending, seconds = b"", START_SECONDS
    while True:
        deadline = time.monotonic() + seconds
        while b"\n" not in pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([worker.stdout], [], [], left)[0]:
                return
            received = os.read(worker.stdout.fileno(), 1 << 16)
            if not received:
                return
            pending += received
        line, _, pending = pending.partition(b"\n")
        yield json.loads(line)
        seconds = WALL_SECONDS


def _start() -> subprocess.Popen[bytes]:
    """A new process: not a fork, which would take JAX's threads' locks along, and in a session of
    its own, so that Ctrl-C reaches this process alone."""
    _end()
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    worker = subprocess.Popen(
        [sys.executable, "-c", "from malt_jax.grading import worker; worker.main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Sympy orders by hash in places: the same verdicts in every run.
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"},
        start_new_session=True,
    )
    _PROCESSES.append(worker)
    return worker


def _end() -> None:
    while _PROCESSES:
        worker = _PROCESSES.pop()
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


atexit.register(_end)


def _path(function: Callable[..., Any]) -> str:
    """Where the other process finds a function: "module:name"."""
    if "." in function.__qualname__ or function.__module__ == "__main__":
        raise ValueError(f"{function.__qualname__}: make it a function of a module's own")
    return f"{function.__module__}:{function.__qualname__}"
