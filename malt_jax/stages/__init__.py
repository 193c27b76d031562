"""The stages of a job, one a file, and the job that goes through them in one work directory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from malt_jax.config.names import choices, load_object
from malt_jax.config.settings import Settings
from malt_jax.serve.address import LOCAL, Address
from malt_jax.stages import (
    audit,
    claiming,
    collect,
    datasets,
    evaluate,
    merge,
    plan,
    report,
    rounds,
    serve,
    solutions,
    solve,
    train,
    upload,
)
from malt_jax.stages.asked import NOTHING, Asked
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage
from malt_jax.workdir.outputs import Bindings

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        *(collect.STAGE, datasets.STAGE, train.STAGE, evaluate.STAGE, report.STAGE),
        *(rounds.STAGE, solutions.STAGE, merge.STAGE, audit.STAGE, plan.STAGE),
        *(solve.STAGE, serve.STAGE, upload.STAGE),
    )
}
"""By name, in the order of a job."""
OF_A_ROUND = ("collect", "datasets", "train")
"""What a job of several rounds does in each, in the place of doing it once."""


def in_order(count: int = 1) -> tuple[str, ...]:
    """The names of the stages that a job of so many rounds goes through unless it is asked for
    others."""
    names = tuple(stage.name for stage in STAGES.values() if not stage.on_request)
    if count == 1:
        return names
    return rounds.STAGE.name, *(name for name in names if name not in OF_A_ROUND)


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
    return claiming.bindings(_declared(stages))


def _declared(stages: Sequence[Stage]) -> list[Stage]:
    return list({**STAGES, **{stage.name: stage for stage in stages}}.values())


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
        if settings.rounds.count > 1 and name in OF_A_ROUND:
            raise ValueError(
                f"--stage={name}: with config.rounds.count={settings.rounds.count} it is done in "
                "every round; give --stage=rounds"
            )
        named(name).foresees(job)


def run(
    settings: Settings,
    config: Mapping[str, Any],
    names: Sequence[str],
    *,
    topology: str = "",
    sample: int = 0,
    asked: Asked = NOTHING,
    address: Address = LOCAL,
    repository: str = "",
) -> None:
    """Runs the stages of these names in the work directory, where each goes on from what it already
    holds.

    `config` is the resolved config as given, kept beside the results; `topology` is for `plan`,
    `sample` for `audit`, `asked` for `solve`, `address` for `serve`, `repository` for
    `upload`.
    Raises ValueError if the work directory holds another config's results.
    """
    stages = [named(name) for name in names]
    foresee(settings, names)
    collects = any(stage.collects for stage in stages) and not settings.trees
    job = Job(settings, collects, config, topology, sample, asked, address, repository)
    if any(stage.claims for stage in stages):
        claim(job.directory, config, stages, job.base_hashes)
        claiming.check_questions(job)
    for stage in stages:
        stage.timed(job)


def claim(
    workdir: Path,
    config: Mapping[str, Any],
    stages: Sequence[Stage] = (),
    base: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """`claiming.claim` with what all stages declare, and others of the user's own."""
    claiming.claim(workdir, config, _declared(stages), base)
