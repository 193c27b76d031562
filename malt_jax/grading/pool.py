"""Grading beside the thread that drives the devices: a few processes, each driven by a thread.

`submit` returns at once, so that the devices need not wait for a verdict. What was graded is
remembered, and completions that are alike (of one tree often many) are graded once.
"""

import atexit
import hashlib
import json
import os
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from absl import logging

from malt_jax.grading import isolation, judges, mixed
from malt_jax.grading.isolation import Worker
from malt_jax.grading.judge import Sample
from malt_jax.tasks.task import Task
from malt_jax.types import Grade

# One core is the devices' thread's. A process grades some 300 answers of MATH a second, and takes
# up to 150 MB: four keep up with any host's devices, and are no burden to it.
PROCESSES = max(1, min(4, (os.cpu_count() or 1) - 1))
# Every rule looks for the last mark, number or statement, so the end of a text has the verdict of
# the whole. Longer than any completion a model writes within its limit of tokens.
MAX_CHARACTERS = 100_000
REMEMBERED = 1 << 14  # verdicts, about a kilobyte each
_BATCH = 64  # samples sent at once: enough to spread the cost of a message

Verdict = Future[Grade]


def submit(
    task: Task, samples: Sequence[Sample], *, leniently: bool = False
) -> Future[list[Grade]]:
    """The samples' grades to come, in their order. A grade is `judge.verdict`'s, or "unknown" for
    a sample that could not be graded within isolation's limits of time and the worker's memory.
    Any thread may call it.

    The future raises ValueError if the task's rules do, for a reference answer that they cannot
    read, and ChildProcessError if a grading process does not start.

    Raises:
        ValueError: if a function of the task cannot be found from another process.
    """
    if task.judged:
        return _weighed(task, samples, [judges.submit(task.judged, sample) for sample in samples])
    how = isolation.described(task, leniently=leniently)
    pool = _POOL
    with pool.lock:
        verdicts: list[Verdict] = []
        fresh: list[tuple[bytes, Sample, Verdict]] = []
        for sample in samples:
            asked = _asked(sample)
            key = hashlib.sha256(json.dumps([how, asked]).encode()).digest()
            if key not in pool.verdicts:
                pool.verdicts[key] = Future()
                fresh.append((key, asked, pool.verdicts[key]))
            pool.verdicts.move_to_end(key)
            verdicts.append(pool.verdicts[key])
        while len(pool.verdicts) > REMEMBERED:
            pool.verdicts.popitem(last=False)
        size = min(_BATCH, -(-len(fresh) // PROCESSES))
        for start in range(0, len(fresh), size or 1):
            _put(pool, _Batch(how, fresh[start : start + size]))
    return _weighed(task, samples, verdicts)


def grade(task: Task, samples: Sequence[Sample], *, leniently: bool = False) -> list[Grade]:
    """The samples' grades, in their order, as `submit` gives them; raises what its future does."""
    return submit(task, samples, leniently=leniently).result()


def close() -> None:
    """Ends the processes once all that was submitted is graded, and forgets the verdicts; the next
    grading starts others."""
    global _POOL
    pool, _POOL = _POOL, _Pool()
    with pool.lock:
        for _ in pool.threads:
            pool.batches.put(None)
    for thread in pool.threads:
        thread.join()


def processes() -> list[subprocess.Popen[bytes]]:
    """Those that run now."""
    return [worker.process for worker in _POOL.workers if worker.process is not None]


@dataclass(frozen=True)
class _Batch:
    """Samples that one process grades, each with its key among the verdicts."""

    how: Mapping[str, Any]
    samples: Sequence[tuple[bytes, Sample, Verdict]]


@dataclass
class _Pool:
    """`verdicts` has the latest last; those to come stand among them. `unfinished` counts batches;
    threads are started as batches would wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    batches: SimpleQueue[_Batch | None] = field(default_factory=SimpleQueue)
    verdicts: OrderedDict[bytes, Verdict] = field(default_factory=OrderedDict)
    workers: list[Worker] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    unfinished: int = 0


_POOL = _Pool()


def _asked(sample: Sample) -> Sample:
    """What the verdict depends on."""
    return sample._replace(completion=sample.completion[-MAX_CHARACTERS:])


def _put(pool: _Pool, batch: _Batch) -> None:
    pool.batches.put(batch)
    pool.unfinished += 1
    if len(pool.threads) < min(PROCESSES, pool.unfinished):
        worker = Worker()
        # A daemon: a program that ends does not wait for verdicts that nobody reads.
        thread = threading.Thread(
            target=_drive, args=(pool, worker), name=f"grading-{len(pool.threads)}", daemon=True
        )
        pool.workers.append(worker)
        pool.threads.append(thread)
        thread.start()


def _drive(pool: _Pool, worker: Worker) -> None:
    """Grades batches in one process, until there are to be no more."""
    while (batch := pool.batches.get()) is not None:
        waiting = list(batch.samples)
        try:
            samples = [sample for _, sample, _ in waiting]
            for verdict, why in isolation.grade(worker, batch.how, samples):
                key, sample, future = waiting.pop(0)
                if why:
                    logging.warning("not graded (%s): ...%r", why, sample.completion[-80:])
                    _forget(pool, key)  # nor is a process killed by accident the sample's fault
                future.set_result(verdict)
        except BaseException as error:
            for key, _, future in waiting:
                _forget(pool, key)
                future.set_exception(error)
        with pool.lock:
            pool.unfinished -= 1
    isolation.end(worker)


def _forget(pool: _Pool, key: bytes) -> None:
    with pool.lock:
        pool.verdicts.pop(key, None)


def _weighed(
    task: Task, samples: Sequence[Sample], verdicts: Sequence[Verdict]
) -> Future[list[Grade]]:
    """One future of all, with scores as the task's reward weighs them."""

    def weigh(grades: Sequence[Grade]) -> list[Grade]:
        return [
            mixed.mixed(grade, sample, task.reward)
            for grade, sample in zip(grades, samples, strict=True)
        ]

    together: Future[list[Grade]] = Future()
    together.set_running_or_notify_cancel()  # nobody can take it back
    distinct = set(verdicts)
    left, lock = len(distinct), threading.Lock()

    def done(_: Verdict) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        try:
            together.set_result(weigh([verdict.result() for verdict in verdicts]))
        except BaseException as error:
            together.set_exception(error)

    for verdict in distinct:
        verdict.add_done_callback(done)
    if not distinct:
        together.set_result([])
    return together


@atexit.register
def _abandon() -> None:
    for worker in _POOL.workers:
        worker.closed = True
        isolation.end(worker)
