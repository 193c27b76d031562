"""A run's settings with the package's own training phases: their defaults, for recipes to start
from, their check, and their reference."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict

from malt_jax.config import parse as parsing
from malt_jax.config.files import load, names
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.settings import RoleSettings, Settings
from malt_jax.learn.phases import PHASES

__all__ = ["base", "completed", "load", "names", "parse", "reference"]


def base() -> ConfigDict:
    """Every setting with its default, for a recipe to start from. It is none itself: it names no
    model and no data."""
    values = dataclasses.asdict(Settings())
    del values["phases"]
    return ConfigDict(
        values | {name: dataclasses.asdict(kind()) for name, kind in _kinds().items()}
    )


def _kinds() -> dict[str, type[PhaseSettings]]:
    return {name: phase.settings for name, phase in PHASES.items()}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of an earlier version with the settings that it lacks at their defaults."""
    defaults = base().to_dict() | {"roles": {}}
    filled = _filled(config, defaults)
    role = dataclasses.asdict(RoleSettings())
    return filled | {
        "roles": {name: _filled(values, role) for name, values in filled["roles"].items()}
    }


def _filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _filled(values[name], default)
        for name, default in defaults.items()
        if isinstance(default, dict) and isinstance(values.get(name), dict)
    }
    return {**defaults, **values, **both}


def parse(config: Mapping[str, Any]) -> Settings:
    """Checks a resolved config (a plain nested dictionary).

    Raises ValueError naming the key, as `config.parse.parse` does, and for roles that do not
    agree with the phases they are trained in.
    """
    parsed = parsing.parse(config, _kinds())
    for fault in _faults(parsed):
        raise ValueError(fault)
    return parsed


def _faults(parsed: Settings) -> Iterator[str]:
    """What is wrong with the roles' phases, a line each."""
    phases = (name for name, phase in PHASES.items() if phase.exported)
    folders = {"base", "gguf", "merged", *phases}
    for name, role in parsed.roles.items():
        key = f"config.roles.{name}"
        if name in folders:
            yield f"{key}: a folder of export/ has that name; choose another"
        for place, phase in enumerate(role.train):
            before = PHASES[phase].after
            if before and not set(before) & set(role.train[:place]):
                yield f"{key}.train: {phase} needs the {' or '.join(before)} policy before it"
            drawn = PHASES[phase].drawn(parsed.phases[phase], parsed.sample_of_trees)
            if drawn and not drawn.sampling.temperature:
                yield (
                    "config.sample.temperature: 0 is greedy, and greedy samples have no policy "
                    f"gradient; give a temperature above 0, or leave {phase} out of {key}.train"
                )


def reference() -> str:
    """All settings as a Markdown table, in the order of their declaration: key, type, default,
    meaning, and what is refused."""
    head = ["key", "type", "default", "meaning", "refused with"]
    rows = [head, ["---"] * len(head), *_rows(Settings, "config")]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _rows(kind: type, key: str) -> Iterator[list[str]]:
    hints, defaults = get_type_hints(kind), kind()
    for field in dataclasses.fields(kind):
        default, name = getattr(defaults, field.name), f"{key}.{field.name}"
        if field.metadata.get("beside"):
            for phase, phase_settings in _kinds().items():
                yield from _rows(phase_settings, f"{key}.{phase}")
        elif isinstance(default, dict):
            yield from _rows(get_args(hints[field.name])[1], f"{name}.ROLE")
        elif dataclasses.is_dataclass(default):
            yield from _rows(type(default), name)
        else:
            rules = "; ".join(rule.says for rule in field.metadata["rules"])
            shown = f"`{default!r}`" if len(repr(default)) < 80 else "a prompt, see the base recipe"
            row = [f"`{name}`", _type(hints[field.name]), shown, field.metadata["doc"], rules]
            yield [cell.replace("|", "\\|").replace("\n", " ") for cell in row]


def _type(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        return f"tuple, each {_type(get_args(hint)[0])}"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[hint]
