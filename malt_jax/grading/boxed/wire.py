"""What goes between the processes of the sandboxes: lines, and in them plain values.

The modules of this package stand alone: a sandbox has them and the standard library, and no
package. A process starts for every program, so that what `program` imports must take no
milliseconds (typing and json do). Messages are lines: to a program hexadecimal `marshal`, from it
JSON, since `marshal` trusts its sender.
"""

from __future__ import annotations

import os
from _collections import deque  # type: ignore[import-not-found]
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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


class Remote:
    """A stand-in for an object of the program's process. It equals nothing but itself."""

    def __init__(self, channel: Any, index: int) -> None:
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


def _forwarded(name: str) -> Callable[..., Any]:
    """A method that the object itself carries out. None of these makes two objects equal."""

    def method(self: Remote, *args: Any) -> Any:
        return self.__getattr__(name)(*args)

    return method


for _name in ("len", "getitem", "setitem", "delitem", "iter", "str", "repr"):
    setattr(Remote, f"__{_name}__", _forwarded(f"__{_name}__"))


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


def limit(cpu_seconds: int, memory: int) -> None:
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
