"""A config, which is plain data, as settings."""

from collections.abc import Mapping
from dataclasses import make_dataclass, replace
from typing import Any, get_type_hints

from malt_jax.config.phase import PhaseSettings
from malt_jax.config.places import located
from malt_jax.config.schema import faults
from malt_jax.config.settings import Settings
from malt_jax.config.typed import build


def parse(config: Mapping[str, Any], phases: Mapping[str, type[PhaseSettings]]) -> Settings:
    """Checks a resolved config (a plain nested dictionary). `phases` says of which type each
    phase's group is; `malt_jax.recipe.parse` knows those of the package.

    Raises ValueError naming the key for an unknown or missing key, a value of the wrong type, or
    a value with which no run can succeed.
    """
    hints = get_type_hints(Settings)
    del hints["phases"]
    read = build(make_dataclass("Config", [*hints.items(), *phases.items()]), config, "config")
    values = {name: getattr(read, name) for name in hints}
    settings = Settings(**values, phases={name: getattr(read, name) for name in phases})
    for fault in faults(settings, "config"):
        raise ValueError(fault)
    return _located(settings)


def _located(settings: Settings) -> Settings:
    """With paths as the system takes them. That of a work directory goes through `storage.at`."""
    model, data = settings.model, settings.data
    places = (place.rpartition(":") for place in data.exclude)
    return replace(
        settings,
        model=replace(model, path=located(model.path)),
        data=replace(
            data,
            train=located(data.train),
            eval=located(data.eval),
            exclude=tuple(f"{task}:{located(path)}" for task, _, path in places),
        ),
    )
