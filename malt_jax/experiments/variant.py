"""What a variant is: the main run's config with other values, in a work directory below it.

What a variant does not change it takes from the run beside which it stands: the samples
(`config.trees`) and, of roles that are to stay as they are, the trained adapters
(`config.roles.ROLE.adapter`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malt_jax.workdir import reads, storage

Config = dict[str, Any]
Values = dict[str, Any]
"""Values of settings by dotted key."""

TRAINED = ("collect", "datasets", "train", "evaluate")
EVALUATED = ("evaluate",)


@dataclass(frozen=True)
class Variant:
    """One experiment beside the main run, or beside the run of another seed, `beside`.

    `rows` maps a system that it evaluates to the row of the table that this is, and `title` says
    what it is; `values` are dotted config keys. `reuses` is whether its trees are those of the run
    beside it. `swept` is the setting that it has another value of than that run, and that value;
    `reported` is where among the paper's ablations its vote stands (see `paper.accuracy`).
    """

    name: str
    group: str
    title: str
    values: Mapping[str, Any]
    rows: Mapping[str, str]
    stages: tuple[str, ...] = TRAINED
    reuses: bool = True
    swept: tuple[str, float] | None = None
    reported: tuple[str, ...] = ()
    beside: "Variant | None" = None

    @property
    def key(self) -> str:
        """Its name in the suite, with that of the run beside it."""
        return f"{self.beside.key}/{self.name}" if self.beside else self.name


def resolve(main: Config, variant: Variant) -> Config:
    """The whole config of a variant: what `malt_jax.main` would be given to run it by itself. One
    that trains beside a run of several rounds goes through as many, and draws its own trees: from
    the second round on they are of its own team."""
    run = beside(main, variant)
    config = copy.deepcopy(run)
    trains, several = "collect" in variant.stages, run["rounds"]["count"] > 1
    values = {
        "suite": "",
        "workdir": str(directory(run, variant.name)),
        "trees": run["workdir"] if variant.reuses and trains and not several else "",
        # What is only evaluated goes through no rounds.
        "rounds.count": run["rounds"]["count"] if trains else 1,
        "rounds.thresholds": run["rounds"]["thresholds"] if trains else (),
        "eval.systems": tuple(variant.rows),
        "eval.critiques": False,
        "eval.equal_compute": False,
        **variant.values,
    }
    for key, value in values.items():
        *groups, last = key.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return config


def beside(main: Config, variant: Variant) -> Config:
    """The config of the run beside which a variant stands."""
    return resolve(main, variant.beside) if variant.beside else main


def directory(run: Config, name: str) -> Path:
    """The work directory of the variant of this name beside a run."""
    return storage.at(run["workdir"]) / reads.VARIANTS / name


def workdir(main: Config, variant: Variant) -> Path:
    """A variant's work directory."""
    return directory(beside(main, variant), variant.name)


def results(main: Config, variant: Variant) -> Path:
    """The file that is there once a variant is done."""
    return workdir(main, variant) / "eval" / "results.json"


def rows(name: str) -> dict[str, str]:
    """The rows of a variant's trained team."""
    return {"malt": name, "malt_mv": f"{name}_mv"}


def every_row(main: Config, name: str) -> dict[str, str]:
    """The rows of a variant that evaluates what the main run does."""
    return {system: f"{system}_{name}" for system in main["eval"]["systems"]}


def kept(main: Config, roles: Sequence[str] = ()) -> dict[str, Any]:
    """Values that take roles (all of the chain by default) as the main run trained them."""
    values: dict[str, Any] = {}
    for role in roles or main["chain"]:
        if main["roles"][role]["train"]:
            values[f"roles.{role}.train"] = ()
            values[f"roles.{role}.adapter"] = str(storage.at(main["workdir"]) / "export" / role)
    return values


def untrained(main: Config) -> dict[str, Any]:
    """Values that leave all roles of the chain at the base model."""
    return {
        f"roles.{role}.{key}": empty
        for role in main["chain"]
        for key, empty in (("train", ()), ("adapter", ""))
    }
