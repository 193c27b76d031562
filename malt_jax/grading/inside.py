"""What runs inside the sandboxes: `program` serves a model's program, `checks` holds it to tests.

The two are processes of two sandboxes that share nothing but a pair of pipes. Tests run in the
process of the checks, where the program's functions are stand-ins: a call sends its arguments to
the program's process and gets back a plain value, which is compared here. The program's process
never holds a test, an expected value, or a word of the verdict. Whatever a program does to its own
process (exit, patch builtins, override `__eq__`, write to the pipe), it can do no more than answer
calls.

This file stands alone: a sandbox has it and the standard library, and no package. A process starts
for every program, so that `program` imports nothing that takes milliseconds (typing, json).
Messages are lines: to a program hexadecimal `marshal`, from it JSON, since `marshal` trusts its
sender.
"""

from __future__ import annotations

import builtins
import marshal
import os
import sys
from _collections import deque  # type: ignore[import-not-found]
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

MOST_ITEMS = 10_000  # of an iterator that a program returns
MOST_CHARACTERS = 1 << 20  # of a message

_SEQUENCES: Mapping[str, Any] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))


class Unsendable(Exception):
    """A test passes a value that no other process can be given."""


class Ended(BaseException):
    """The program's process is no more; the argument says why. No `except Exception` of a test
    takes it for an error of the program."""


class Remote:
    """A stand-in for an object of the program's process. It equals nothing but itself."""

    def __init__(self, channel: Channel, index: int) -> None:
        object.__setattr__(self, "_place", (channel, index))

    def __call__(self, *args: Any, **named: Any) -> Any:
        channel, index = self._place
        return channel.call(index, args, named)

    def __getattr__(self, name: str) -> Any:
        channel, index = self._place
        return channel.ask("get", index, name)

    def __setattr__(self, name: str, value: Any) -> None:
        channel, index = self._place
        channel.ask("set", index, name, encode(value))


def encode(value: Any, keep: Callable[[Any], int] | None = None) -> Any:
    """A value as plain lists: what is plain itself by value, other objects as the index that `keep`
    gives them.

    A subclass of a plain type is sent as that type, so that no `__eq__` of a program's own takes
    part in a comparison; an iterator is sent as its first items.

    Raises:
        Unsendable: for any other value where there is no `keep`.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            items = [encode(item, keep) for item in value]
            return [name, sorted(items, key=repr) if "set" in name else items]
    if isinstance(value, dict):
        return ["dict", [[encode(k, keep), encode(v, keep)] for k, v in value.items()]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, Remote):
        return ["object", value._place[1]]
    if type(value).__module__ in ("decimal", "fractions"):
        return [type(value).__name__, str(value)]
    if keep is None:
        raise Unsendable(f"a {type(value).__name__} cannot be passed to a program")
    if isinstance(value, _VIEWS):
        return ["list", [encode(item, keep) for item in value]]
    if hasattr(value, "__next__"):
        return ["iterator", [encode(item, keep) for item in islice(value, MOST_ITEMS)]]
    return ["object", keep(value)]


def decode(message: Any, kept: Callable[[int], Any]) -> Any:
    """The value that `encode` made a message of; `kept(index)` gives what stands for an object that
    was not sent. Raises ValueError for what is no such message."""
    if isinstance(message, dict):
        raise ValueError("no value")
    if not isinstance(message, list):
        return message
    kind, *parts = message
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](decode(item, kept) for item in parts[0])
    match kind:
        case "dict":
            return {decode(k, kept): decode(v, kept) for k, v in parts[0]}
        case "iterator":
            return iter([decode(item, kept) for item in parts[0]])
        case "bytes":
            return bytes.fromhex(parts[0])
        case "complex":
            return complex(*parts)
        case "range":
            return range(*parts)
        case "object":
            return kept(int(parts[0]))
        case "Decimal" | "Fraction":
            import decimal
            import fractions

            return getattr(decimal if kind == "Decimal" else fractions, kind)(parts[0])
    raise ValueError("no value")


def text(message: Any) -> str:
    """What `encode` made, as JSON in ASCII."""
    from _json import encode_basestring_ascii

    if isinstance(message, str):
        return encode_basestring_ascii(message)
    if isinstance(message, list):
        return "[" + ",".join(map(text, message)) + "]"
    if isinstance(message, float):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(
            str(message), str(message)
        )
    if message is None or isinstance(message, bool):
        return {None: "null", True: "true", False: "false"}[message]
    return str(message)


class Lines:
    """The pipes of standard input and output, line by line. Nothing is read beyond a line. The
    three standard streams then lead nowhere."""

    def __init__(self) -> None:
        self.source, self.sink, self.pending = os.dup(0), os.dup(1), b""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)

    def read(self) -> str:
        """The next line; ends the process where there is none."""
        while b"\n" not in self.pending:
            received = os.read(self.source, 1 << 16)
            if not received:
                os._exit(0)
            self.pending += received
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode("ascii")

    def write(self, line: str) -> None:
        """Sends a line."""
        unsent = memoryview(line.encode("ascii") + b"\n")
        while unsent:
            unsent = unsent[os.write(self.sink, unsent) :]


def _limit(cpu_seconds: int, memory: int) -> None:
    """What the kernel holds this process to from here on; nothing in it can raise a limit again."""
    import resource

    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 1 << 24,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
        # No process and no thread beside this one. The sandbox's filter of system calls says so as
        # well: this limit does not bind a host's root.
        resource.RLIMIT_NPROC: 1,
    }
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))


def program(cpu_seconds: int, memory: int) -> None:
    """Serves one program: loads it, then calls what it defines, until the pipe ends."""
    lines = Lines()
    _limit(cpu_seconds, memory)
    lines.write('["ready"]')
    objects: list[Any] = []
    while True:
        request = marshal.loads(bytes.fromhex(lines.read()))
        try:
            reply = text(_served(request, objects))
            if len(reply) > MOST_CHARACTERS:
                reply = '["raised","MemoryError"]'
        except BaseException as error:
            reply = text(["raised", type(error).__name__])
        lines.write(reply)


def _served(request: Sequence[Any], objects: list[Any]) -> list[Any]:
    """The answer to a request: ["value", value], and, after a call that changed its arguments,
    those as well."""

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    action, place, *parts = request
    match action:
        case "load":
            return ["value", _loaded(place, parts[0], keep)]
        case "get":
            return ["value", encode(getattr(objects[place], parts[0]), keep)]
        case "set":
            setattr(objects[place], parts[0], decode(parts[1], objects.__getitem__))
            return ["value", None]
    args = [decode(arg, objects.__getitem__) for arg in parts[0]]
    named = {name: decode(arg, objects.__getitem__) for name, arg in parts[1]}
    value = encode(objects[place](*args, **named), keep)
    try:
        after = [encode(arg) for arg in args]
    except Unsendable:
        after = parts[0]
    return ["value", value] if after == parts[0] else ["value", value, ["list", after]]


def _loaded(code: str, names: list[str], keep: Callable[[Any], int]) -> Any:
    """Runs a program, and gives the objects of those of `names` that it defines. What it raises
    after the first of them is there (at a question to a user, say) is forgiven."""
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    try:
        exec(compile(code, "<program>", "exec"), module.__dict__)
    except BaseException:
        if not callable(vars(module).get(names[0])):
            raise
    defined = [name for name in names if name in vars(module)]
    return ["dict", [[name, ["object", keep(vars(module)[name])]] for name in defined]]


class Channel:
    """The program's process, as the checks see it."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def ask(self, *request: Any) -> Any:
        """What the program answers. Raises what it raised, and Ended."""
        return self._answer(request)[0]

    def _answer(self, request: tuple[Any, ...]) -> tuple[Any, Any]:
        import json

        self.lines.write("P" + marshal.dumps(request).hex())
        kind, *parts = json.loads(self.lines.read())
        if kind == "ended":
            raise Ended(parts[0])
        if kind == "raised":
            error = getattr(builtins, str(parts[0]), None)
            known = isinstance(error, type) and issubclass(error, Exception)
            raise (error if known else Exception)("in the program")  # type: ignore[misc]
        value, *changed = (decode(part, lambda index: Remote(self, index)) for part in parts)
        return value, changed[0] if changed else ()

    def call(self, index: int, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Calls an object of the program's, and makes the changes that it makes to lists,
        dictionaries and sets among its arguments."""
        sent = [encode(arg) for arg in args]
        pairs = [[name, encode(value)] for name, value in named.items()]
        value, changed = self._answer(("call", index, sent, pairs))
        for before, after in zip(args, changed, strict=False):
            if type(before) is not type(after):
                continue
            if isinstance(before, list):
                before[:] = after
            elif isinstance(before, dict | set):
                before.clear()
                before.update(after)
        return value


def checks(cpu_seconds: int, memory: int) -> None:
    """Holds one program after another to its tests, each in a fork of this process."""
    import json

    lines = Lines()
    lines.write('V{"ready": true}')
    while True:
        request = json.loads(lines.read())
        if not (child := os.fork()):
            _limit(cpu_seconds, memory)
            lines.write("V" + json.dumps(_verdict(Channel(lines), request)))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            lines.write('V{"died": true}')


def _verdict(channel: Channel, request: Mapping[str, Any]) -> dict[str, Any]:
    """Which tests a program passes (`passed`, a bool for each; where `every` is asked for, up to
    the first that it fails), and what it makes of the probes (`behaviour`, an entry for each, None
    for an error). `loaded` tells whether it defines its entry point. `ended` says why its process
    is no more, `why` what kept its tests from being tests."""
    import random

    random.seed(0)  # tests may draw their inputs: the same for every program
    names: dict[str, Any] = {"__name__": "checks"}
    passed: list[bool] = []
    behaviour: list[Any] = []
    said: dict[str, Any] = {"passed": passed, "behaviour": behaviour, "loaded": False}
    try:
        exec(compile(request["setup"], "<setup>", "exec"), names)
    except Exception as error:
        return said | {"why": f"setup of the tests: {error!r}"[:200]}
    try:
        names |= _program(channel, request, names)
        said["loaded"] = True
        for test in request["tests"]:
            passed.append(_passes(test, names))
            if request["every"] and not passed[-1]:
                break
        for probe in request["probes"]:
            behaviour.append(_outcome(probe, names))
    except Unsendable as error:
        said["why"] = str(error)
    except Ended as error:
        said["ended"] = str(error)
    except Exception:  # it cannot be loaded
        pass
    return said


def _program(
    channel: Channel, request: Mapping[str, Any], names: Mapping[str, Any]
) -> dict[str, Any]:
    """Loads the program. Its entry point goes by its own name and as `candidate`; other names that
    tests use and do not define themselves are the program's."""
    entry = request["entry"]
    others = [name for name in request["names"] if name not in names and name != entry]
    defined = channel.ask("load", request["code"], [entry, *others])
    if not isinstance(defined, dict) or entry not in defined:
        raise LookupError("the program does not define its entry point")
    return {**defined, "candidate": defined[entry]}


def _passes(test: str, names: dict[str, Any]) -> bool:
    try:
        exec(compile(test, "<test>", "exec"), names)
    except Unsendable:
        raise
    except Exception:
        return False
    return True


def _outcome(probe: str, names: dict[str, Any]) -> Any:
    try:
        return ["value", encode(eval(probe, names), lambda value: 0)]
    except Exception:
        return None


if __name__ == "__main__":
    role, cpu, space = sys.argv[1:]
    (program if role == "program" else checks)(int(cpu), int(space))
