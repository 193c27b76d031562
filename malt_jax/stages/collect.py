"""Stage 1: the training questions' n^3 trees of graded samples, as `trees/*.parquet`."""

from collections.abc import Sequence
from pathlib import Path

from malt_jax.config.settings import Settings
from malt_jax.rollout import driver, reuse
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import SAMPLES, Stage
from malt_jax.types import Question
from malt_jax.workdir.outputs import Output


def run(workdir: Path, settings: Settings, team: Team, questions: Sequence[Question]) -> None:
    """Collects the trees that `workdir/trees` does not hold yet."""
    per_shard = settings.sample.questions_per_shard
    driver.store(workdir / "trees", full_tree(team), questions, per_shard, "collect")


def _stage(job: Job) -> None:
    job.claim_base()
    if not job.settings.trees:
        run(job.directory, job.settings, job.team, job.training)
        return
    base = job.model.content_hash
    hosts.by_first(lambda: reuse.run(job.directory, job.settings, job.config, base))


STAGE = Stage(
    "collect",
    "draw the training questions' trees and grade them",
    _stage,
    (Output("trees", (*SAMPLES, "trees")),),
    collects=True,
)
