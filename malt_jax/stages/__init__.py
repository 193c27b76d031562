"""The stages of a job, one a file, and the job that goes through them in one work directory."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax import recipe
from malt_jax.config.names import choices, load_object
from malt_jax.config.settings import Settings
from malt_jax.evaluate import passes, systems
from malt_jax.runtime import hosts
from malt_jax.stages import (
    audit,
    collect,
    datasets,
    evaluate,
    merge,
    plan,
    report,
    solutions,
    train,
)
from malt_jax.stages.job import Job
from malt_jax.stages.stage import FREE, Stage
from malt_jax.workdir import question_record, run_record
from malt_jax.workdir.outputs import Bindings
from malt_jax.workdir.storage import read_json

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        *(collect.STAGE, datasets.STAGE, train.STAGE, evaluate.STAGE, report.STAGE),
        *(solutions.STAGE, merge.STAGE, audit.STAGE, plan.STAGE),
    )
}
"""By name, in the order of a job."""


def in_order() -> tuple[str, ...]:
    """The names of the stages that a job goes through unless it is asked for others."""
    return tuple(stage.name for stage in STAGES.values() if not stage.on_request)


def named(name: str) -> Stage:
    """A stage of `STAGES`, or one of the user's own, given as FILE.py:NAME or package.module:NAME.

    Raises ValueError for a name that is neither, with the closest one.
    """
    if name in STAGES:
        return STAGES[name]
    if ":" not in name:
        raise ValueError(f"--stage: no stage {name!r}; {choices(name, STAGES)}")
    stage = load_object(name, "--stage")
    if not isinstance(stage, Stage):
        raise ValueError(f"--stage: {name} is no malt_jax.stages.stage.Stage")
    return stage


def bindings(stages: Sequence[Stage] = ()) -> Bindings:
    """What the stages, and others of the user's own, declare of their outputs."""
    declared = {**STAGES, **{stage.name: stage for stage in stages}}.values()
    outputs = tuple(output for stage in declared for output in stage.outputs)
    return Bindings(outputs, FREE, _adds)


def _adds(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """More systems only add passes, unless these are longer ones in the place of those there."""
    if key != "eval.systems" or not set(old["eval"]["systems"]) <= set(new["eval"]["systems"]):
        return False
    before, now = (
        passes.draws(systems.chosen(settings), settings)
        for settings in map(recipe.parse, (old, new))
    )
    return all(now.get(place) == draw for place, draw in before.items())


def check(settings: Settings) -> None:
    """Raises ValueError if the prompts leave no room for a question in the model's context, or if
    there is no system of a name in `config.eval.systems`."""
    job = Job(settings, collects=False)
    _ = job.systems, job.rooms


def foresee(settings: Settings, names: Sequence[str]) -> None:
    """Raises ValueError for what would end one of the stages hours into the job, as far as it can
    be known before any work is done, and before anything is written."""
    job = Job(settings, collects=False)
    for name in names:
        named(name).foresees(job)


def run(
    settings: Settings,
    config: Mapping[str, Any],
    names: Sequence[str],
    *,
    topology: str = "",
    sample: int = 0,
) -> None:
    """Runs the stages of these names in the work directory, where each goes on from what it already
    holds.

    `config` is the resolved config as given, kept beside the results; `topology` is for `plan`,
    `sample` for `audit`.
    Raises ValueError if the work directory holds another config's results.
    """
    stages = [named(name) for name in names]
    foresee(settings, names)
    collects = any(stage.collects for stage in stages) and not settings.trees
    job = Job(settings, collects, config, topology, sample)
    if any(stage.claims for stage in stages):
        claim(job.directory, config, stages, job.base_hashes)
        check_questions(job)
    for stage in stages:
        started = time.perf_counter()
        logging.info("stage %s", stage.name)
        stage.run(job)
        logging.info("stage %s took %.0f s", stage.name, time.perf_counter() - started)


def check_questions(job: Job) -> None:
    """Reads the questions again, and so compares them with those of then, where a file that they
    come from has changed: also for stages that do not ask them. Raises ValueError naming one that
    differs."""
    record = read_json(job.directory / "config.json")
    changed = run_record.changed_inputs(record)
    held_out = question_record.path(job.directory, "eval").exists() and "data.eval" in changed
    sources = {"data.train", "data.eval", "data.exclude"}
    trained = question_record.path(job.directory, "train").exists() and sources & changed.keys()
    if hosts.any_says(held_out):
        _ = job.held_out
    if hosts.any_says(bool(trained)):
        _ = job.training
    noted = {**record.get("inputs", {}), **changed}
    if hosts.any_says(bool(changed)):
        hosts.by_first(lambda: run_record.note(job.directory, inputs=noted))


def claim(
    workdir: Path,
    config: Mapping[str, Any],
    stages: Sequence[Stage] = (),
    base: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """`run_record.claim` by the first host, with what all stages declare. Raises ValueError if the
    other hosts have another directory of this name."""
    hosts.by_first(
        lambda: run_record.claim(workdir, config, bindings(stages), base, recipe.completed)
    )
    path = workdir / "config.json"
    if not hosts.same(path.read_bytes() if path.exists() else b""):
        raise ValueError(
            f"config.workdir: {workdir} is not one directory for all hosts; name one on a file "
            "system that they share, or in a bucket"
        )
