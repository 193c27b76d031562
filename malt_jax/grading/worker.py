"""The process in which answers are graded; `isolation` starts it, feeds it and kills it.

It reads a JSON object a line (a task as `isolation.described`, `cpu_seconds`, `samples`) and writes
a JSON list a line: ["ready"], then [status, answer, via, score, why] for each sample. Nothing that
it writes is ever unpickled or run, so that a text which took this process over would have won a
verdict at most.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

from malt_jax.grading import judge, programs
from malt_jax.grading.judge import Sample
from malt_jax.tasks import own
from malt_jax.tasks.program import Running
from malt_jax.tasks.task import Task
from malt_jax.types import Grade

MEMORY = 1 << 30  # bytes of address space; sympy with its parsers takes a tenth of it


def main() -> None:
    """Serves until standard input ends."""
    requests, replies = sys.stdin, os.fdopen(os.dup(1), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints must not stand among the replies
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for limit, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    for line in requests:
        _serve(json.loads(line), replies)
        os.dup2(nowhere, 2)  # a start that fails may say why; warnings of parsers are noise


def _serve(request: dict[str, Any], replies: TextIO) -> None:
    places = {name: request[name] for name in ("rules", "grade", "program", "answer", "warm_up")}
    functions = {name: _function(place) for name, place in places.items()}
    task = Task("", **functions, running=Running(**request["running"]))
    samples = [
        Sample(completion, answer, truncated, tuple(map(tuple, choices)), question)
        for completion, answer, truncated, choices, question in request["samples"]
    ]
    task.warm_up()
    if task.program:
        programs.warm_up(task.running.isolation)
    _reply(replies, ["ready"])
    for verdict in _verdicts(task, samples, request["leniently"], request["cpu_seconds"]):
        _reply(replies, verdict)


def _verdicts(
    task: Task, samples: Sequence[Sample], leniently: bool, seconds: float
) -> Iterator[list[Any]]:
    if task.grade:
        try:
            with _limited(seconds):
                grades = judge.by_grader(task, samples)
            yield from map(_written, grades)
            return
        except Exception:
            pass  # whose fault it is shows below
    for sample in samples:
        with _limited(seconds):
            verdict = _verdict(task, sample, leniently)
        yield verdict


def _verdict(task: Task, sample: Sample, leniently: bool) -> list[Any]:
    """A reference that the rules cannot read is an error; whatever else goes wrong (out of memory,
    too deep, a fault of the grader) costs this verdict."""
    try:
        if task.program:
            return _written(*programs.verdict(task, sample))
        if task.rules is None:
            return _written(judge.by_grader(task, [sample])[0])
        try:
            rules = task.rules(sample.answer, sample.choices)
        except ValueError as error:
            return ["error", "", "", None, str(error)]
        return _written(judge.by_rules(rules, sample, leniently=leniently))
    except Exception as error:
        return ["unknown", "", "", None, f"{type(error).__name__}: {error}"[:200]]


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """The kernel ends the process when the time is used up, whatever code is running then."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _written(grade: Grade, why: str = "") -> list[Any]:
    return [grade.status, grade.answer, grade.via, grade.score, why]


def _reply(replies: TextIO, row: list[Any]) -> None:
    replies.write(json.dumps(row) + "\n")
    replies.flush()


@cache
def _function(place: str) -> Any:
    return own.load(place) if place else None
