"""A JSON object and its fields, read strictly: what is not of the type and in the range is refused
by name. A field that is null is one that is not there."""

import json
from collections.abc import Mapping
from typing import Any

from malt_jax.serve.refused import Refused

Body = Mapping[str, Any]

DEEPEST = 32


def decoded(text: bytes) -> Body:
    """A JSON object of at most DEEPEST levels. Raises `Refused` for anything else."""
    try:
        body = json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise Refused(400, f"the body is nested deeper than {DEEPEST} levels") from error
    except ValueError as error:  # of the encoding as well
        raise Refused(400, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object")
    _check_depth(body)
    return body


def text(value: object, name: str) -> str:
    """A text that can be written as UTF-8. Raises `Refused` naming the field."""
    if not isinstance(value, str):
        raise Refused(400, f"{name}: {shown(value)}, not a text", param=name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refused(400, f"{name}: half of a surrogate pair", param=name) from error
    return value


def flag(body: Body, key: str, default: bool) -> bool:
    """True or false. Raises `Refused` naming the field."""
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refused(400, f"{key}: {shown(value)}, not true or false", param=key)
    return value


def number(body: Body, key: str, low: float, high: float) -> float | None:
    """A number from `low` to `high`. Raises `Refused` naming the field."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        message = f"{key}: {shown(value)}, not a number from {low} to {high}"
        raise Refused(400, message, param=key)
    return float(value)


def integer(body: Body, key: str, low: int, high: int) -> int | None:
    """An integer from `low` to `high`. Raises `Refused` naming the field."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = f"{key}: {shown(value)}, not an integer from {low} to {high}"
        raise Refused(400, message, param=key)
    return value


def shown(value: object) -> str:
    """A value of a client's as an error may repeat it: in ASCII, and short."""
    whole = json.dumps(value)
    return whole if len(whole) <= 40 else f"{whole[:40]}..."


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_depth(body: Body) -> None:
    level: list[object] = [body]
    for _ in range(DEEPEST):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise Refused(400, f"the body is nested deeper than {DEEPEST} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
