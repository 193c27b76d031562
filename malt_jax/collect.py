"""Stage 1: the training questions' n^3 trees, graded, with values and labels, as
`trees/*.parquet`."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from malt_jax import shards, tree
from malt_jax.settings import Settings
from malt_jax.types import Question


def nodes_per_question(branching: Sequence[int]) -> int:
    """Nodes of one tree: n_1 + n_1 n_2 + ... (39 for the paper's n = 3)."""
    return sum(math.prod(branching[: depth + 1]) for depth in range(len(branching)))


def run(workdir: Path, settings: Settings, team: tree.Team, questions: Sequence[Question]) -> None:
    """Collects the trees that `workdir/trees` does not hold yet."""

    def grow_trees(
        batch: Sequence[Question], progress: Callable[[int], Any]
    ) -> list[dict[str, Any]]:
        return tree.rows(team, tree.expand(team, batch, progress), settings.credit)

    shards.grow(
        workdir / "trees",
        questions,
        grow_trees,
        per_shard=settings.sample.questions_per_shard,
        nodes_per_question=nodes_per_question(settings.branching),
        title="collect",
    )
