"""Stage 1: the training questions' n^3 trees of graded samples, as `trees/*.parquet`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from malt_jax.config.settings import Settings
from malt_jax.models.identity import identity
from malt_jax.rollout import driver, reuse
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.runtime import hosts
from malt_jax.sampler import Sampling
from malt_jax.stages.job import Job
from malt_jax.stages.stage import SAMPLES, Stage, gradable
from malt_jax.types import Question
from malt_jax.workdir import question_record, run_record, storage
from malt_jax.workdir.outputs import Output
from malt_jax.workdir.storage import read_json


def run(workdir: Path, settings: Settings, team: Team, questions: Sequence[Question]) -> None:
    """Collects the trees that `workdir/trees` does not hold yet."""
    per_shard = settings.sample.questions_per_shard
    driver.store(workdir / "trees", full_tree(team), questions, per_shard, "collect")


def _stage(job: Job) -> None:
    job.claim_base()
    if not job.settings.trees:
        run(job.directory, job.settings, drawing(job), job.training)
        return
    _check_questions(job)
    base = identity(job.model)
    hosts.by_first(lambda: reuse.run(job.directory, job.settings, job.config, base))


def drawing(job: Job) -> Team:
    """Who draws the trees: the untrained team, or the one that `config.rounds.behaviour` exported,
    of which a role that is not trained draws as it is evaluated. Raises ValueError for an adapter
    that is not there, or of another base."""
    over, sample = job.settings.rounds, job.settings.sample_of_trees
    adapters = job.adapters_of(storage.at(over.behaviour)) if over.behaviour else {}
    # A question that is asked again is asked with other random numbers.
    stream = f"collect {over.number}" if over.number > 1 else "collect"
    return replace(
        job.team,
        adapters=adapters,
        sampling=Sampling(sample.temperature, sample.top_k, sample.top_p),
        round=over.number,
        random_stream=stream,
    )


def _check_questions(job: Job) -> None:
    """Raises ValueError naming a question of which the trees elsewhere were drawn as it is no
    longer. It is looked for where the files have other bytes than they had there."""
    source = storage.at(job.settings.trees)
    recorded = question_record.path(source, "train")
    changed = (
        run_record.changed_inputs(read_json(source / "config.json")) if recorded.exists() else {}
    )
    if hosts.any_says(any(key.startswith("data.") for key in changed)):
        question_record.check(recorded, job.training, "config.data.train")


STAGE = Stage(
    "collect",
    "draw the training questions' trees and grade them",
    _stage,
    (
        Output(
            "trees",
            (
                *(*SAMPLES, "trees", "rounds.behaviour", "rounds.number", "rounds.questions"),
                "rounds.drawn_at",
            ),
            ("temperatures",),
        ),
    ),
    collects=True,
    foresees=gradable,
)
