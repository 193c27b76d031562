"""A run's settings with the package's own training phases: what `config/` alone cannot know."""

from collections.abc import Iterator, Mapping
from typing import Any

from malt_jax.config import settings
from malt_jax.config.settings import Settings
from malt_jax.learn.phases import PHASES


def parse(config: Mapping[str, Any]) -> Settings:
    """Checks a resolved config (a plain nested dictionary).

    Raises ValueError naming the key, as `config.settings.parse` does, and for roles that do not
    agree with the phases they are trained in.
    """
    parsed = settings.parse(config, {name: phase.settings for name, phase in PHASES.items()})
    for fault in _faults(parsed):
        raise ValueError(fault)
    return parsed


def _faults(parsed: Settings) -> Iterator[str]:
    """What is wrong with the roles' phases, a line each."""
    folders = {"merged", *(name for name, phase in PHASES.items() if phase.exported)}
    for name, role in parsed.roles.items():
        key = f"config.roles.{name}"
        if name in folders:
            yield f"{key}: a folder of export/ has that name; choose another"
        for place, phase in enumerate(role.train):
            before = PHASES[phase].after
            if before and not set(before) & set(role.train[:place]):
                yield f"{key}.train: {phase} needs the {' or '.join(before)} policy before it"
