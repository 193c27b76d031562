"""Settings on the command line: `--config.KEY=VALUE`, over those of a recipe."""

import ast
import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from malt_jax.config.names import closest

_FLAG = re.compile(r"--?(?P<no>no)?config\.(?P<key>[^=]+)(?:=(?P<text>.*))?", re.DOTALL)
_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Override(NamedTuple):
    """A setting as the command line has it."""

    key: str
    text: str | None  # None: the flag stands alone, which is true for a switch
    no: bool  # --noconfig.KEY


def split(arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides among a command line's arguments, and all other arguments.

    A value stands behind a = or is the next argument, unless that begins with a -.
    """
    overrides, others, left = [], [], list(arguments)
    while left:
        argument = left.pop(0)
        if not (flag := _FLAG.fullmatch(argument)):
            others.append(argument)
            continue
        text = flag["text"]
        if text is None and not flag["no"] and left and not left[0].startswith("-"):
            text = left.pop(0)
        overrides.append(Override(flag["key"], text, bool(flag["no"])))
    return overrides, others


def applied(
    config: Mapping[str, Any], overrides: Iterable[Override], new_role: Mapping[str, Any]
) -> dict[str, Any]:
    """A copy of a nested config with the overrides' values, each of the type that it replaces.

    Of a setting given twice the last value counts; items of a tuple given one by one add up, and a
    whole tuple begins anew. A role that `chain` names after all overrides, and that `config.roles`
    does not describe, is one of the user's own: it begins with the values of `new_role`.

    Raises ValueError naming the key, and one like it, for a setting that does not exist, and for a
    text that is no value of its type.
    """
    changed, texts = copy.deepcopy(dict(config)), _by_key(overrides)
    for key in sorted(texts, key=lambda key: key != "chain"):  # it says which roles there are
        *groups, name = key.split(".")
        if len(groups) > 1 and groups[0] == "roles" and groups[1] in changed["chain"]:
            changed["roles"].setdefault(groups[1], dict(new_role))
        place: Any = changed
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            raise ValueError(f"config.{key}: unknown key; {_closest_key(key, changed)}")
        place[name] = _value(f"config.{key}", place[name], texts[key])
    return changed


def _by_key(overrides: Iterable[Override]) -> dict[str, list[Override]]:
    texts: dict[str, list[Override]] = {}
    for override in overrides:
        texts.setdefault(override.key, []).append(override)
    return texts


def _value(key: str, before: Any, given: Sequence[Override]) -> Any:
    """The value that the last of the flags of a key gives, of the type of the one before."""
    _, text, no = given[-1]
    if isinstance(before, bool):
        word = "true" if text is None else text.lower()
        if word not in _WORDS or (no and text is not None):
            raise ValueError(f"{key}: {text!r} is neither true nor false")
        return _WORDS[word] is not no
    if no:
        raise ValueError(f"--no{key}: is no switch; give --{key}=VALUE")
    if text is None:
        raise ValueError(f"--{key}: needs a value: --{key}=VALUE")
    match before:
        case dict():
            keys = ", ".join(f"{key}.{name}" for name in before)
            raise ValueError(f"{key}: is a group of settings; give one of {keys}")
        case tuple():
            items: tuple[Any, ...] = ()
            for flag in given:
                value = _literal(key, flag.text or "")
                items = tuple(value) if isinstance(value, tuple | list) else (*items, value)
            return items
        case int() | float():
            try:
                return type(before)(text)
            except ValueError:
                kind = "a whole number" if isinstance(before, int) else "a number"
                raise ValueError(f"{key}: {text!r} is not {kind}") from None
    if text == "None":
        raise ValueError(f"{key}: 'None' would be a name; for none give --{key}=")
    return text


def _literal(key: str, text: str) -> Any:
    """A tuple as Python writes it, or a single item without quotes."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        if re.search(r"[\s,]", text):
            example = f"--{key}=\"('a','b')\""
            raise ValueError(f"{key}: {text!r} is no tuple; write {example}") from None
        return text


def _closest_key(key: str, config: Mapping[str, Any]) -> str:
    """What to say of a key that is not in the config."""
    group: Any = config
    names = key.split(".")
    for depth, name in enumerate(names):
        if not isinstance(group, Mapping):
            return f"config.{'.'.join(names[:depth])} is no group of settings"
        if name not in group:
            break
        group = group[name]
    known = {name: ".".join([*names[:depth], name]) for name in group}
    for inner, below in config.items():
        if depth == 0 and isinstance(below, Mapping):
            known |= {name: f"{inner}.{name}" for name in below if name not in known}
    if (close := closest(names[depth], known)) is None:
        if names[0] == "roles" and depth == 1:
            return f"name {names[1]!r} in config.chain too, or choose from {', '.join(known)}"
        return f"known keys: {', '.join(f'config.{full}' for full in known.values())}"
    rest = names[depth + 1 :] if isinstance(group.get(close), Mapping) else []
    return f"did you mean config.{'.'.join([known[close], *rest])}?"
