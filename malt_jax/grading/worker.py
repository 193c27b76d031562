"""The process in which answers are graded; `isolation` starts it, feeds it and kills it.

It reads a JSON object a line (`rules`, `warm_up`, `leniently`, `cpu_seconds`, `samples`) and writes
a JSON list a line: ["ready"], then [status, answer, via, why] for each sample. Nothing that it
writes is ever unpickled or run, so that a text which took this process over would have won a
verdict at most.
"""

import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TextIO

from malt_jax.tasks.extract import judge, judge_leniently

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
    rules, warm_up = _function(request["rules"]), _function(request["warm_up"])
    warm_up()
    _reply(replies, ["ready"])
    for completion, answer, truncated, choices in request["samples"]:
        # The kernel ends the process when the time is used up, whatever code is running then.
        signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
        try:
            held = rules(answer, tuple(map(tuple, choices)))
            if request["leniently"]:
                found = judge_leniently(completion, held)
            else:
                found = judge(completion, held, truncated)
            verdict = [found.status, found.answer, found.via, ""]
        except ValueError as error:
            verdict = ["error", "", "", str(error)]
        except Exception as error:  # out of memory, too deep, or a fault of the grader
            verdict = ["unknown", "", "", f"{type(error).__name__}: {error}"[:200]]
        signal.setitimer(signal.ITIMER_PROF, 0)
        _reply(replies, verdict)


def _reply(replies: TextIO, row: list[str]) -> None:
    replies.write(json.dumps(row) + "\n")
    replies.flush()


@cache
def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
