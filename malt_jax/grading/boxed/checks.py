"""The process of the tests: holds one program after another to them, each in a fork.

Here the program's functions are stand-ins: a call sends its arguments to the program's process and
gets back a plain value, which is compared here.
"""

from __future__ import annotations

import builtins
import json
import marshal
import os
import random
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from malt_jax.grading.boxed import wire
else:
    wire = __import__("wire")  # beside this file, in a sandbox without the package

PROBE_SECONDS = 0.1  # a varied argument may be one on which a right program never ends


class Ended(BaseException):
    """The program's process is no more; the argument says why. No `except Exception` of a test
    takes it for an error of the program."""


def _error(name: str) -> type[Exception]:
    """The built-in error of that name; a plain one for others, and for those that would end a loop
    of the tests early."""
    error = getattr(builtins, name, None)
    if not (isinstance(error, type) and issubclass(error, Exception)):
        return Exception
    return RuntimeError if issubclass(error, StopIteration | StopAsyncIteration) else error


class Channel:
    """The program's process, as the checks see it."""

    seconds = 0.0  # of CPU that a call may take; 0: what the program has in all

    def __init__(self, lines: wire.Lines) -> None:
        self.lines = lines

    def ask(self, *request: Any) -> Any:
        """What the program answers. Raises what it raised, and Ended."""
        return self._answer(request)[0]

    def _answer(self, request: tuple[Any, ...]) -> tuple[Any, Any]:
        self.lines.write("P" + marshal.dumps(request).hex())
        kind, *parts = json.loads(self.lines.read())
        if kind == "ended":
            raise Ended(parts[0])
        if kind == "raised":
            raise _error(str(parts[0]))("in the program")
        value, *changed = (
            wire.decode(part, lambda index: wire.Remote(self, index)) for part in parts
        )
        return value, changed[0] if changed else ()

    def call(self, index: int, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Calls an object of the program's, and makes the changes that it makes to lists,
        dictionaries and sets among its arguments."""
        sent = [wire.encode(arg) for arg in args]
        pairs = [[name, wire.encode(value)] for name, value in named.items()]
        value, changed = self._answer(("call", index, sent, pairs, self.seconds))
        for before, after in zip(args, changed, strict=False):
            if type(before) is not type(after):
                continue
            if isinstance(before, list):
                before[:] = after
            elif isinstance(before, dict | set):
                before.clear()
                before.update(after)
        return value


def main(cpu_seconds: int, memory: int) -> None:
    """Holds one program after another to its tests, each in a fork of this process."""
    lines = wire.Lines()
    lines.write('V{"ready": true}')
    while True:
        request = json.loads(lines.read())
        if not (child := os.fork()):
            wire.limit(cpu_seconds, memory)
            lines.write("V" + json.dumps(_verdict(Channel(lines), request)))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            lines.write('V{"died": true}')


def _verdict(channel: Channel, request: Mapping[str, Any]) -> dict[str, Any]:
    """Which tests a program passes (`passed`, a bool for each; where `every` is asked for, up to
    the first that it fails), and what it makes of the probes (`behaviour`, an entry for each, None
    for an error). `loaded` tells whether it defines its entry point. `ended` says why its process
    is no more, `why` what kept its tests from being tests."""
    random.seed(0)  # tests may draw their inputs: the same for every program
    names: dict[str, Any] = {"__name__": "checks"}
    passed: list[bool] = []
    behaviour: list[Any] = []
    report: dict[str, Any] = {"passed": passed, "behaviour": behaviour, "loaded": False}
    try:
        exec(compile(request["setup"], "<setup>", "exec"), names)
    except Exception as error:
        return report | {"why": f"setup of the tests: {error!r}"[:200]}
    try:
        names |= _program(channel, request, names)
        report["loaded"] = True
        for test in request["tests"]:
            passed.append(_passes(test, names))
            if request["every"] and not passed[-1]:
                break
        channel.seconds = PROBE_SECONDS
        for probe in request["probes"]:
            behaviour.append(_outcome(probe, names))
    except wire.Unsendable as error:
        report["why"] = str(error)
    except Ended as error:
        report["ended"] = str(error)
    except Exception:  # it cannot be loaded
        pass
    return report


def _program(
    channel: Channel, request: Mapping[str, Any], names: Mapping[str, Any]
) -> dict[str, Any]:
    """Loads the program. Its entry point goes by its own name and as `candidate`; other names that
    tests use and do not define themselves are the program's, but never those of the standard
    library: a `math` that tests forgot to import is not for the program to make."""
    entry = request["entry"]
    used = [name for name in request["names"] if name not in names and name != entry]
    modules = {name: __import__(name) for name in used if name in sys.stdlib_module_names}
    others = [name for name in used if name not in modules]
    defined = channel.ask("load", request["code"], [entry, *others])
    if not isinstance(defined, dict) or entry not in defined:
        raise LookupError("the program does not define its entry point")
    return {**defined, **modules, "candidate": defined[entry]}


def _passes(test: str, names: dict[str, Any]) -> bool:
    try:
        exec(compile(test, "<test>", "exec"), names)
    except wire.Unsendable:
        raise
    except Exception:
        return False
    return True


def _outcome(probe: str, names: dict[str, Any]) -> Any:
    try:
        return ["value", wire.encode(eval(probe, names), lambda value: 0)]
    except Exception:
        return None
