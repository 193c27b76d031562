"""Leaves that could not be graded: missing in the values, the labels and the data sets."""

import itertools
from dataclasses import replace

import numpy as np
import planted_graders
import pyarrow.parquet as pq
import small

from malt_jax import tasks
from malt_jax.config.settings import CreditSettings
from malt_jax.learn import datasets
from malt_jax.rollout import tree
from malt_jax.rollout.roles import Role
from malt_jax.sampler import Completion, Sampling
from malt_jax.types import Question
from malt_jax.workdir import shards

CREDIT = CreditSettings(0.5, False, 3, 2)
ROLES = (Role("generator", "{question}", ("question",), 2, 9), Role("verifier", "", (), 2, 9))
BRANCHING = (2, 2, 2)


def rows(answers: list[str], credit: CreditSettings = CREDIT) -> list[dict]:
    """The rows of one tree with these leaf completions; "exit" ends the grading process."""
    roles = (*ROLES, Role("refiner", "", (), 2, 9))
    task = replace(tasks.get("gsm8k"), rules=planted_graders.dies)
    team = tree.Team(None, small.tokenizer(), roles, {}, task, Sampling(1.0), 0, "collect")  # type: ignore[arg-type]
    levels = []
    for depth, role in enumerate(roles):
        paths = list(itertools.product(*map(range, BRANCHING[: depth + 1])))
        levels.append(
            [
                tree.Node(
                    Question("q", "1+1", "2"), role.name, path, [4],
                    Completion([5, 0], np.zeros(2, np.float32), True),
                    answers[i] if depth == 2 else f"text {path}",
                )
                for i, path in enumerate(paths)
            ]
        )  # fmt: skip
    return tree.rows(team, levels, credit)


LEAVES = ["right 1", "exit", "right 2", "fault", "exit", "crash", "exit", "right 3"]


def by_path(found: list[dict]) -> dict[tuple[int, ...], dict]:
    return {tuple(row["path"]): row for row in found}


def test_an_unknown_leaf_counts_in_no_mean_and_is_no_negative():
    found = by_path(rows(LEAVES))
    facts = ("status", "answer", "reward", "value", "label")
    assert [found[0, 0, 0][k] for k in facts] == ["correct", "right 1", 1.0, 1.0, True]
    assert [found[0, 0, 1][k] for k in facts] == ["unknown", "", None, None, None]
    assert found[0, 0]["value"] == found[0,]["value"] == found[1,]["value"] == 1.0
    assert [found[1, 0][k] for k in ("value", "label")] == [None, None]  # none of its leaves
    assert found[1, 1]["value"] == 1.0


def test_shuffled_rewards_leave_missing_leaves_where_they_are():
    plain, mixed = (
        by_path(rows(LEAVES, replace(CREDIT, shuffle_rewards=shuffle))) for shuffle in (False, True)
    )
    assert {p: r["status"] for p, r in plain.items()} == {p: r["status"] for p, r in mixed.items()}
    assert all((plain[p]["value"] is None) == (mixed[p]["value"] is None) for p in plain)


def test_shards_and_data_sets_take_them(tmp_path):
    """In the data sets they are neither chosen nor rejected, and the yield says how many."""
    shards.write(tmp_path / "trees" / "shard-00000.parquet", rows(LEAVES), shards.SCHEMA)
    assert [row["value"] for row in shards.read(tmp_path / "trees")].count(None) == 6

    class settings:
        chain = ("generator", "verifier", "refiner")
        credit = CREDIT

    summary = datasets.run(tmp_path, settings)  # type: ignore[arg-type]
    assert {role: counts["nodes"] for role, counts in summary.items()} == {
        "generator": 2,
        "verifier": 3,
        "refiner": 3,
    }
    assert summary["refiner"]["dropped"] == {"not graded": 5}
    assert summary["verifier"]["dropped"] == {"not graded": 1}
    kto = pq.read_table(tmp_path / "datasets" / "refiner" / "kto.parquet").to_pylist()
    assert [row["completion"] for row in kto] == ["right 1", "right 2", "right 3"]


def test_a_tree_without_any_grade_gives_nothing_and_ends_no_run(tmp_path):
    found = rows(["exit"] * 8)
    assert {row["value"] for row in found} == {None}
    shards.write(tmp_path / "trees" / "shard-00000.parquet", found, shards.SCHEMA)

    class settings:
        chain = ("generator", "verifier", "refiner")
        credit = CREDIT

    summary = datasets.run(tmp_path, settings)  # type: ignore[arg-type]
    assert [counts["nodes"] for counts in summary.values()] == [0, 0, 0]
    assert summary["refiner"]["value_histogram"]["counts"] == [0] * 10
