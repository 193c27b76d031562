"""Calls that tell how a program behaves: those that its task shows, and variations of them."""

import ast
import random
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from malt_jax.tasks import code

MOST_SHOWN = 6
MOST = 16  # with the variations
_BY_TYPE: dict[str, Any] = {"int": 3, "float": 1.5, "str": "abc", "bool": True, "list": [3, 1, 2]}
_UNTYPED = (3, [3, 1, 2], "abc")


@lru_cache(maxsize=1024)
def probes(text: str, prompt: str, entry: str) -> tuple[str, ...]:
    """Calls of `entry`, the same for the same arguments: the first that `text` shows (in a
    docstring, an assertion, an example), then seeded variations of them, and where it shows none,
    of values that fit the header at the end of `prompt`."""
    calls = list(dict.fromkeys(_shown(text, entry)))[:MOST_SHOWN]
    literal = [args for call in calls if (args := _literals(call)) is not None]
    if not calls:
        literal = list(_guessed(prompt, entry))
        calls = [_written(entry, args) for args in literal]
    rng = random.Random(text)
    for _ in range(4 * MOST if literal else 0):
        args = list(rng.choice(literal))
        if not args or len(calls) == MOST:
            break
        place = rng.randrange(len(args))
        args[place] = _varied(args[place], rng)
        if (call := _written(entry, args)) not in calls:
            calls.append(call)
    return tuple(calls)


def _shown(text: str, entry: str) -> Iterator[str]:
    """The calls of `entry` that stand in a text and can be read, as they are written."""
    for match in re.finditer(rf"(?<![\w.]){re.escape(entry)}\(", text):
        if re.search(r"\b(?:def|class)\s+$", text[: match.start()]):
            continue
        line = text[match.start() :].partition("\n\n")[0][:2000]
        for closing in re.finditer(r"\)", line):
            tree = code.parsed(line[: closing.end()])
            if tree and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
                call = tree.body[0].value
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    yield ast.unparse(call)
                break


def _literals(call: str) -> list[Any] | None:
    """The arguments of a call, if all of them are literals and none is named."""
    tree = ast.parse(call, mode="eval").body
    if not isinstance(tree, ast.Call) or tree.keywords:
        return None
    try:
        return [ast.literal_eval(arg) for arg in tree.args]
    except ValueError:
        return None


def _guessed(prompt: str, entry: str) -> Iterator[list[Any]]:
    """Arguments by the types in the header of `entry`, and of several types where it has none."""
    tree = code.parsed(prompt + "\n    pass\n")
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            kinds = [
                ast.unparse(arg.annotation) if arg.annotation else "" for arg in node.args.args
            ]
            for untyped in _UNTYPED:
                yield [_BY_TYPE.get(kind.lower().partition("[")[0], untyped) for kind in kinds]


def _varied(value: Any, rng: random.Random) -> Any:
    """A value of the same type that differs a little."""
    match value:
        case bool():
            return not value
        case int():
            return rng.choice([value + 1, value - 1, 2 * value, 0, value + 10])
        case float():
            return rng.choice([value + 1.0, -value, value / 2, 0.0])
        case str():
            return rng.choice([value[1:], value[::-1], value + value, value.swapcase(), ""])
        case list() | tuple():
            items = list(value)
            if items and rng.random() < 0.5:
                place = rng.randrange(len(items))
                items[place] = _varied(items[place], rng)
            else:
                items = rng.choice([items[::-1], items[:-1], items + items, items[1:]])
            return type(value)(items)
        case dict() if value:
            key = rng.choice(list(value))
            return {**value, key: _varied(value[key], rng)}
    return value


def _written(entry: str, args: list[Any]) -> str:
    return f"{entry}({', '.join(map(repr, args))})"
