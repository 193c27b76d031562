"""The process of a program: loads it, and answers calls of what it defines.

It holds no test, no expected value and no word of a verdict. Whatever a program does to this
process (exit, patch builtins, override `__eq__`, write to the pipe), it can do no more than answer
calls.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from malt_jax.grading.boxed import wire
else:
    wire = __import__("wire")  # beside this file, in a sandbox without the package


class TooLong(BaseException):
    """A call took more than its own time, before the program's was used up."""


def _interrupt(*_: Any) -> None:
    raise TooLong


def main(cpu_seconds: int, memory: int) -> None:
    """Serves one program: loads it, then calls what it defines, until the pipe ends."""
    lines = wire.Lines()
    wire.limit(cpu_seconds, memory)
    lines.write('["ready"]')
    _signal.signal(_signal.SIGVTALRM, _interrupt)
    objects: list[Any] = []
    while True:
        request = marshal.loads(bytes.fromhex(lines.read()))
        try:
            reply = wire.text(_served(request, objects))
            if len(reply) > wire.MOST_CHARACTERS:
                reply = '["raised","MemoryError"]'
        except BaseException as error:
            reply = wire.text(["raised", type(error).__name__])
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
            return ["value", wire.encode(getattr(objects[place], parts[0]), keep)]
        case "set":
            setattr(objects[place], parts[0], wire.decode(parts[1], objects.__getitem__))
            return ["value", None]
    args = [wire.decode(arg, objects.__getitem__) for arg in parts[0]]
    named = {name: wire.decode(arg, objects.__getitem__) for name, arg in parts[1]}
    _signal.setitimer(_signal.ITIMER_VIRTUAL, parts[2])
    try:
        value = wire.encode(objects[place](*args, **named), keep)
    finally:
        _signal.setitimer(_signal.ITIMER_VIRTUAL, 0)
    try:
        after = [wire.encode(arg) for arg in args]
    except wire.Unsendable:
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
