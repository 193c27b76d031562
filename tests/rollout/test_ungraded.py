"""Leaves that could not be graded: missing in the values, the labels and the data sets."""

from dataclasses import replace

import numpy as np
import planted_graders
import pyarrow.parquet as pq
import small
from telling import telling

from malt_jax import credit, tasks
from malt_jax.config.credit import CreditSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.learn import datasets
from malt_jax.rollout import driver, records
from malt_jax.rollout.roles import Role
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.sampler import Sampling, Work
from malt_jax.types import Question
from malt_jax.workdir import shards

CREDIT = CreditSettings(0.5, False, 3, 2)
ROLES = tuple(
    Role(name, "{question}", ("question",), 2, 9) for name in ("generator", "verifier", "refiner")
)
BRANCHING = (2, 2, 2)


def rows(answers: list[str]) -> list[dict]:
    """The rows of one tree with these leaf completions; "exit" ends the grading process."""
    task = replace(tasks.get("gsm8k"), rules=planted_graders.dies)
    team = Team(None, small.tokenizer(), ROLES, {}, task, Sampling(1.0), 0, "collect")  # type: ignore[arg-type]

    def say(_, path: tuple[int, ...]) -> str:
        leaf = len(path) == len(BRANCHING)
        return answers[np.ravel_multi_index(path, BRANCHING)] if leaf else f"text {path}"

    strategy = full_tree(telling(team, say))
    (batch,) = driver.grow(strategy, [Question("q", "1+1", "2")], lambda nodes: None, Work())
    return batch


def valued(answers: list[str], settings: CreditSettings = CREDIT) -> list[dict]:
    return credit.assign(rows(answers), settings, 0)


LEAVES = ["right 1", "exit", "right 2", "fault", "exit", "crash", "exit", "right 3"]


def by_path(sampled: list[dict]) -> dict[tuple[int, ...], dict]:
    return {tuple(row["path"]): row for row in sampled}


def test_an_unknown_leaf_counts_in_no_mean_and_is_no_negative():
    sampled = by_path(valued(LEAVES))
    facts = ("status", "answer", "reward", "value", "label")
    assert [sampled[0, 0, 0][k] for k in facts] == ["correct", "right 1", 1.0, 1.0, True]
    assert [sampled[0, 0, 1][k] for k in facts] == ["unknown", "", None, None, None]
    assert sampled[0, 0]["value"] == sampled[0,]["value"] == sampled[1,]["value"] == 1.0
    assert [sampled[1, 0][k] for k in ("value", "label")] == [None, None]  # none of its leaves
    assert sampled[1, 1]["value"] == 1.0


def test_shuffled_rewards_leave_missing_leaves_where_they_are():
    plain, mixed = (
        by_path(valued(LEAVES, replace(CREDIT, shuffle_rewards=shuffle)))
        for shuffle in (False, True)
    )
    assert {p: r["status"] for p, r in plain.items()} == {p: r["status"] for p, r in mixed.items()}
    assert all((plain[p]["value"] is None) == (mixed[p]["value"] is None) for p in plain)


def test_shards_and_data_sets_take_them(tmp_path):
    """In the data sets they are neither chosen nor rejected, and the yield says how many."""
    shards.write(tmp_path / "trees" / "shard-00000.parquet", rows(LEAVES), records.SCHEMA)
    stored = list(shards.read(tmp_path / "trees"))
    assert [row["value"] for row in credit.assign(stored, CREDIT, 0)].count(None) == 6

    class settings:
        chain = ("generator", "verifier", "refiner")
        credit = CREDIT
        rounds = RoundsSettings()
        seed = 0

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
    sampled = rows(["exit"] * 8)
    assert {row["value"] for row in credit.assign(sampled, CREDIT, 0)} == {None}
    shards.write(tmp_path / "trees" / "shard-00000.parquet", sampled, records.SCHEMA)

    class settings:
        chain = ("generator", "verifier", "refiner")
        credit = CREDIT
        rounds = RoundsSettings()
        seed = 0

    summary = datasets.run(tmp_path, settings)  # type: ignore[arg-type]
    assert [counts["nodes"] for counts in summary.values()] == [0, 0, 0]
    assert summary["refiner"]["value_histogram"]["counts"] == [0] * 10
