"""The verdict on a program: its process and that of its tests, each in a sandbox, and the talk
between them.

    tests  --call f(3)-->  this process  --call f(3)-->  program
           <---value 9---                <---value 9---

The tests' process (`boxed.checks`) compares; the program's process (`boxed.program`) only ever
answers calls, so that nothing which it prints, patches, raises or exits with is a verdict. This
process carries lines from one to the other, within limits of length and time. The program's
process is new for each program; that of the tests stays, and forks for each.
"""

import ast
import builtins
import hashlib
import json
import os
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from malt_jax.grading import sandbox
from malt_jax.grading.boxed import wire
from malt_jax.grading.judge import Sample
from malt_jax.grading.sandbox import Boxed
from malt_jax.tasks.program import Isolation, Program, Running
from malt_jax.tasks.task import Task
from malt_jax.types import Grade

WALL_SECONDS = 8.0  # of one program, from its start to the end of its tests
_PROBE_SECONDS = 1  # of CPU, where a program has used up what it had for its tests
_START_SECONDS = 30.0  # of the tests' process, once
_MOST_BYTES = wire.MOST_CHARACTERS + (1 << 10)  # of a line

_CHECKS: dict[Isolation, Boxed] = {}
_SPARE: dict[tuple[Isolation, int], Boxed] = {}
_INSTALL = (
    "install it (apt-get install bubblewrap, or dnf install bubblewrap; 0.8 or newer), or, where "
    "this is a container that may be lost, give --config.data.sandbox=unprotected: programs then "
    "run as you do and can read, write and send whatever you can"
)
_TRIED = Program("def f(x): return x", "f", "", ("assert f(1) == 1",), ())


class Broken(Exception):
    """A sandbox that does not do its part; what it says."""


class _Over(Exception):
    """A process that ended, or went over a limit."""


def require(isolation: Isolation) -> None:
    """Tries a sandbox. Raises ValueError where there is none, with what to install."""
    if isolation == "unprotected":
        return
    if shutil.which("bwrap") is None:
        raise ValueError(f"config.data.sandbox: bwrap (bubblewrap) is not there; {_INSTALL}")
    tried, why = grade(_TRIED, Running(isolation))
    close()
    if tried.status != "correct":
        raise ValueError(
            f"config.data.sandbox: no sandbox here ({why or tried.status}). User namespaces may be "
            "switched off (sysctl kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns, or a container's own rules): allow "
            f"them, or {_INSTALL}"
        )


def verdict(task: Task, sample: Sample) -> tuple[Grade, str]:
    """The grade of the program in a completion, as `grade` gives it. One that was cut short is
    graded only where the program's end is marked.

    Raises:
        ValueError: if the task's `program` does, for a reference that it cannot read.
    """
    assert task.program is not None
    program = task.program(sample.completion, sample.answer, sample.question)
    if sample.truncated and (program is None or not program.closed):
        return Grade("truncated"), ""
    if program is None:
        return Grade("unparseable"), ""
    return grade(program, task.running)


def grade(program: Program, running: Running) -> tuple[Grade, str]:
    """The grade of a program, and what kept it from a verdict, or "".

    `answer` is the digest of its behaviour on its probes, the same for two programs that answer
    them alike; of its text if it answers none of them; and empty if it cannot be loaded. It
    depends on no test.
    """
    try:
        report = _reported(
            program,
            running.isolation,
            every=running.score == "all",
            cpu_seconds=sandbox.CPU_SECONDS,
        )
        if "ended" in report and report["loaded"]:
            # What the program makes of the probes must not depend on the tests, which end it.
            report["behaviour"] = behaviour(program, running, cpu_seconds=_PROBE_SECONDS)
    except (Broken, OSError) as error:
        return Grade("unknown", via="program"), f"{error}"[:200]
    if why := report.get("why", ""):
        return Grade("unknown", via="program"), str(why)
    answer = ""
    if report["loaded"]:
        answer = digest(report["behaviour"] if any(report["behaviour"]) else [program.code])
    passed, tests = sum(report["passed"]), len(program.tests)
    if passed == tests and tests:
        return Grade("correct", answer, "program"), ""
    share = passed / tests if tests and running.score == "share" else 0.0
    return Grade("wrong", answer, "program", share), ""


def behaviour(
    program: Program, running: Running, *, cpu_seconds: int = sandbox.CPU_SECONDS
) -> list[Any]:
    """What a program answers to its probes, an entry each: ["value", value], or None for an error.
    Raises Broken and OSError."""
    untested = replace(program, tests=())
    report = _reported(untested, running.isolation, every=False, cpu_seconds=cpu_seconds)
    return list(report["behaviour"])


def close() -> None:
    """Ends all processes; the next program starts others."""
    for isolation in list(_CHECKS):
        _drop(isolation)
    while _SPARE:
        _SPARE.popitem()[1].end()


def digest(behaviour: list[Any]) -> str:
    """A behaviour as a short name. Numbers count to nine digits."""
    rounded = json.loads(
        json.dumps(behaviour), parse_float=lambda text: float(f"{float(text):.9g}")
    )
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16]


def warm_up(isolation: Isolation) -> None:
    """Starts the tests' process, where it does not run."""
    _checks(isolation)


def _reported(
    program: Program,
    isolation: Isolation,
    *,
    every: bool,
    cpu_seconds: int,
) -> dict[str, Any]:
    """What the tests' process says of a program (`boxed.checks`). Raises Broken and OSError."""
    request = {
        "code": program.code,
        "entry": program.entry,
        "setup": program.setup,
        "tests": program.tests,
        "probes": program.probes,
        "names": _free_names((*program.tests, *program.probes)),
        "every": every,
    }
    checks = _checks(isolation)
    try:
        with _started(isolation, cpu_seconds) as boxed:
            return _carried(checks, boxed, json.dumps(request).encode() + b"\n")
    except BaseException:
        _drop(isolation)
        raise


def _carried(checks: Boxed, boxed: Boxed, request: bytes) -> dict[str, Any]:
    """Carries calls to the program and values back, until there is a verdict."""
    deadline = time.monotonic() + WALL_SECONDS
    over = ""
    try:
        first = next(_lines(boxed, deadline))
    except _Over:
        raise Broken(f"the sandbox does not start: {sandbox.complaint(boxed)}") from None
    if first != b'["ready"]':
        raise Broken("the sandbox does not start")
    replies = _lines(boxed, deadline)
    try:
        _send(checks, request, deadline)
        for line in _lines(checks, deadline + 1):  # the program's end is told to the tests
            if line.startswith(b"V"):
                report = json.loads(line[1:])
                if "died" in report:
                    raise Broken("the process of the tests ended")
                return dict(report)
            try:
                if not over:
                    _send(boxed, line[1:] + b"\n", deadline)
                    reply = next(replies)
            except _Over as error:
                over = str(error)
            if over:
                reply = json.dumps(["ended", over]).encode()
            _send(checks, reply + b"\n", deadline + 1)
    except _Over as error:
        raise Broken(f"the process of the tests: {error}") from None
    raise Broken("the process of the tests says nothing")


@contextmanager
def _started(isolation: Isolation, cpu_seconds: int) -> Iterator[Boxed]:
    """A new process for a program, and another that starts meanwhile, for the next one."""
    key = isolation, cpu_seconds
    boxed = _SPARE.pop(key, None) or sandbox.start("program", *key)
    try:
        if cpu_seconds == sandbox.CPU_SECONDS:
            _SPARE[key] = sandbox.start("program", *key)
        yield boxed
    finally:
        boxed.end()


def _checks(isolation: Isolation) -> Boxed:
    boxed = _CHECKS.get(isolation)
    if boxed is not None and boxed.process.poll() is None:
        return boxed
    boxed = _CHECKS[isolation] = sandbox.start("checks", isolation)
    try:
        next(_lines(boxed, time.monotonic() + _START_SECONDS))
    except _Over:
        why = sandbox.complaint(boxed)
        _drop(isolation)
        raise Broken(f"the sandbox does not start: {why}") from None
    return boxed


def _drop(isolation: Isolation) -> None:
    if boxed := _CHECKS.pop(isolation, None):
        boxed.end()


def _lines(boxed: Boxed, deadline: float) -> Iterator[bytes]:
    """What a process writes, line by line. Raises _Over at its end, at the deadline, and for a
    line that is too long."""
    pending = b""
    while True:
        while b"\n" not in pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([boxed.replies], [], [], left)[0]:
                raise _Over("time")
            received = os.read(boxed.replies, 1 << 16)
            if not received:
                raise _Over("exit")
            pending += received
            if len(pending) > _MOST_BYTES:
                raise _Over("output")
        line, _, pending = pending.partition(b"\n")
        yield line


def _send(boxed: Boxed, line: bytes, deadline: float) -> None:
    unsent = memoryview(line)
    while unsent:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([], [boxed.requests], [], left)[1]:
            raise _Over("time")
        try:
            unsent = unsent[os.write(boxed.requests, unsent) :]
        except BrokenPipeError:
            raise _Over("exit") from None


@lru_cache(maxsize=256)
def _free_names(tests: tuple[str, ...]) -> list[str]:
    """Names that tests use: a class of the program's own, say, whose objects they pass."""
    nodes = (node for test in tests for node in ast.walk(ast.parse(test)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return sorted(names - set(dir(builtins)) - {"candidate"})
