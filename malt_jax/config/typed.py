"""Plain data as the frozen dataclasses that their type hints describe."""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from malt_jax.config.names import closest

_LARGEST = 2**31 - 1  # of an int32, which devices count in
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")  # in no path and no prompt


def build(kind: Any, value: Any, key: str) -> Any:
    """`value` as `kind`: a dataclass, a tuple, a mapping by name, a literal, a number or a string.

    Raises ValueError beginning with the key (`key`, and what stands below it with dots) for one
    that is unknown or missing, and for a value of another type or that no setting can have.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not -_LARGEST <= value <= _LARGEST:  # nor NaN
        raise ValueError(f"{key}: must be a number of at most {_LARGEST}, above or below 0")
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, key)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{key}: {_shown(value)} is not a tuple")
        return tuple(build(inner[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is Mapping or origin is types.MappingProxyType:
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}: {_shown(value)} is not a group of settings")
        for name in value:
            if not str(name).isidentifier():  # it names directories, and prompts show it
                raise ValueError(f"{key}: {name!r} is no name; use letters, digits and _")
        return {name: build(inner[1], item, f"{key}.{name}") for name, item in value.items()}
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{key}: {_shown(value)} is not one of {list(inner)}")
        return value
    if kind is float and number:
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key}: {_shown(value)} is not of type {kind.__name__}")
    if kind is str and (character := _NO_TEXT.search(value)):
        raise ValueError(f"{key}: holds the character U+{ord(character[0]):04X}; remove it")
    return value


def _build_dataclass(kind: type, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: {_shown(value)} is not a group of settings")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in fields:
            close = closest(str(name), fields)
            hint = f"did you mean {key}.{close}?" if close else f"known keys: {sorted(fields)}"
            raise ValueError(f"{key}.{name}: unknown key; {hint}")
    for name in fields:
        if name not in value:
            raise ValueError(
                f"{key}.{name}: missing; start from malt_jax.recipe.base(), which has every key"
            )
    return kind(**{name: build(hints[name], item, f"{key}.{name}") for name, item in value.items()})


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # a number of thousands of digits in it
        return f"a {type(value).__name__}"
