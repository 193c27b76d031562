"""A setting in one place: its default, its type, what it means, and which values are refused.

    @dataclass(frozen=True)
    class SampleSettings:
        temperature: float = setting(0.3, "of trees and evaluation; 0 is greedy", at_least(0))

A rule over several settings is a method `rules(self)` of the group that holds them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, NamedTuple

Checks = list[tuple[str, bool, str]]
"""Rules over several settings of a group: (setting, holds, what to do)."""


class Rule(NamedTuple):
    """Which values a setting may have, and what is said of any other."""

    holds: Callable[[Any], bool]
    says: str


def setting(default: Any, doc: str, *rules: Rule) -> Any:
    """A field of a dataclass of settings. `doc` says what the value means, in the words that the
    reference shows; `rules` are checked in order."""
    return field(default=default, metadata={"doc": doc, "rules": rules})


def group(kind: type, doc: str) -> Any:
    """A field that holds a dataclass of settings, with that one's defaults."""
    return field(default_factory=kind, metadata={"doc": doc})


def beside(doc: str) -> Any:
    """A field that holds dataclasses of settings by name, each of which is a group of its own
    beside the field's other groups: `config.NAME`."""
    return field(default_factory=dict, metadata={"doc": doc, "beside": True})


def another_default(base: type, name: str, default: Any) -> Any:
    """The field `name` of the dataclass `base` with another default, for one that extends it."""
    (field_of_base,) = (item for item in dataclasses.fields(base) if item.name == name)
    return field(default=default, metadata=field_of_base.metadata)


def at_least(least: float, says: str = "") -> Rule:
    """A number no smaller than `least`."""
    return Rule(lambda value: value >= least, says or f"must be at least {least}")


def positive(says: str = "must be positive") -> Rule:
    """A number above 0."""
    return Rule(lambda value: value > 0, says)


def filled(says: str) -> Rule:
    """A text or a tuple that is not empty."""
    return Rule(bool, says)


def faults(settings: Any, key: str) -> Iterator[str]:
    """What is wrong with a dataclass of settings and those below it, a line each, beginning with
    the setting's key."""
    for field_ in dataclasses.fields(settings):
        value, name = getattr(settings, field_.name), f"{key}.{field_.name}"
        for rule in field_.metadata.get("rules", ()):
            if not rule.holds(value):
                yield f"{name}: {rule.says}"
        for place, inner in _inside(value, key if field_.metadata.get("beside") else name):
            yield from faults(inner, place)
    for name, holds, says in getattr(settings, "rules", tuple)():
        if not holds:
            yield f"{key}.{name}: {says}"


def _inside(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if dataclasses.is_dataclass(item):
                yield f"{key}.{name}", item
