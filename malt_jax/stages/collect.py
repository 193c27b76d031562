"""Stage 1: the training questions' n^3 trees of graded samples, as `trees/*.parquet`."""

from collections.abc import Sequence
from pathlib import Path

from malt_jax.config.settings import Settings
from malt_jax.rollout import driver
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.types import Question


def run(workdir: Path, settings: Settings, team: Team, questions: Sequence[Question]) -> None:
    """Collects the trees that `workdir/trees` does not hold yet."""
    per_shard = settings.sample.questions_per_shard
    driver.store(workdir / "trees", full_tree(team), questions, per_shard, "collect")
