"""Stage 1: the training questions' n^3 trees, graded, with values and labels, as
`trees/*.parquet`."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax.config.settings import Settings
from malt_jax.rollout import reuse, tree
from malt_jax.runtime import hosts
from malt_jax.sampler import Work
from malt_jax.stages.job import Job
from malt_jax.stages.stage import SAMPLES, Stage
from malt_jax.types import Question
from malt_jax.workdir import shards
from malt_jax.workdir.outputs import Output


def nodes_per_question(branching: Sequence[int]) -> int:
    """Nodes of one tree: n_1 + n_1 n_2 + ... (39 for the paper's n = 3)."""
    return sum(math.prod(branching[: depth + 1]) for depth in range(len(branching)))


def run(workdir: Path, settings: Settings, team: tree.Team, questions: Sequence[Question]) -> None:
    """Collects the trees that `workdir/trees` does not hold yet."""

    work, per_shard = Work(), settings.sample.questions_per_shard

    def grow_trees(
        pending: Sequence[Question], progress: Callable[[int], Any]
    ) -> Iterator[list[dict[str, Any]]]:
        return tree.grow(team, pending, settings.credit, per_shard, progress, work)

    shards.grow(
        workdir / "trees",
        questions,
        grow_trees,
        per_shard=per_shard,
        nodes_per_question=nodes_per_question(settings.branching),
        title="collect",
        part=hosts.part(team.sampler.mesh),
    )
    logging.info("collect: %s", work.summary())


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
    (Output("trees", (*SAMPLES, "trees", "credit.threshold", "credit.shuffle_rewards")),),
    collects=True,
)
