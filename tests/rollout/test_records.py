"""Rows as this version writes them, and as the one before it left them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from trees import QUESTIONS, team

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.rollout import driver, records
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.sampler import Sampling, Work
from malt_jax.workdir import shards

CREDIT = CreditSettings(0.5, False, 3, 2)
SINCE = {"node", "parent", "logprobs", "behaviour_logprobs", "policy", "round", "score", "via"}
WORTH = [("reward", pa.float32()), ("value", pa.float32()), ("label", pa.bool_())]
FORMAT_1 = pa.schema(
    [(column.name, column.type) for column in records.SCHEMA if column.name not in SINCE] + WORTH
)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Two whole trees, drawn at a temperature and with a cut."""
    playing = replace(team(), sampling=Sampling(0.7, top_k=20), base="sha256:" + "ab" * 32)
    strategy = full_tree(replace(playing, round=3))
    first, second = driver.grow(strategy, QUESTIONS[:2], lambda nodes: None, Work())
    return [*first, *second]


def test_a_row_says_who_drew_it_and_how_likely_it_was(rows):
    assert [set(row) for row in rows] == [set(records.SCHEMA.names)] * 2 * 27
    assert {(row["policy"], row["round"]) for row in rows} == {("sha256:" + "ab" * 8, 3)}
    for row in rows:
        assert len(row["logprobs"]) == len(row["behaviour_logprobs"]) == row["completion_tokens"]
        assert np.sum(row["logprobs"]) == pytest.approx(row["logprob"], abs=1e-3)
    drawn = sum(map(sum, (row["behaviour_logprobs"] for row in rows)))
    assert drawn > sum(row["logprob"] for row in rows)  # what was cut off cannot be drawn


def test_a_row_knows_its_place(rows):
    for tree in (rows[:27], rows[27:]):
        assert [row["node"] for row in tree] == list(range(27))
        for row in tree:
            parent = tree[row["parent"]]["path"] if row["parent"] >= 0 else []
            assert row["path"][:-1] == parent
    answering = [row["role"] for row in rows if row["status"]]
    assert set(answering) == {"generator", "refiner"}
    for row in rows:
        assert row["score"] == (float(row["status"] == "correct") if row["status"] else None)


def test_rows_return_from_disk_as_they_were(rows, tmp_path):
    shards.write(tmp_path / "shard-00000.parquet", rows, records.SCHEMA)
    stored = records.read(tmp_path / "shard-00000.parquet")
    assert stored == [{**row, "logprob": float(np.float32(row["logprob"]))} for row in rows]
    few = records.read(tmp_path / "shard-00000.parquet", ("role", "answer"))
    assert few == [{"role": row["role"], "answer": row["answer"]} for row in rows]


def test_trees_of_format_1_are_read_and_worth_the_same(rows, tmp_path):
    """They stood a depth after the other, with their values, and without what came since."""
    shard = tmp_path / "shard-00000.parquet"
    by_depth = sorted(rows, key=lambda row: len(row["path"]))
    old = [{**row, "value": 0.25, "label": True} for row in by_depth]
    shards.write(shard, old, FORMAT_1)
    read = records.read(shard)
    added = {"logprobs": None, "behaviour_logprobs": None, "policy": "", "round": 0, "via": ""}
    for row, fresh in zip(read, by_depth, strict=True):
        assert row == {**fresh, **added, "logprob": float(np.float32(fresh["logprob"]))}
    worth = {
        (row["question_id"], row["node"]): row["value"] for row in credit.assign(rows, CREDIT, 0)
    }
    for row in credit.assign(read, CREDIT, 0):
        assert row["value"] == worth[row["question_id"], row["node"]]


def test_an_unknown_verdict_of_format_1_is_a_missing_leaf(rows, tmp_path):
    shard = tmp_path / "shard-00000.parquet"
    unread = [row | {"status": "unknown"} for row in rows if row["path"] == [0, 0, 0]]
    others = [row for row in rows if row["path"] != [0, 0, 0]]
    shards.write(shard, [*unread, *others], FORMAT_1)
    stored = records.read(shard, ("status", "score"))
    assert [row["score"] for row in stored[:2]] == [None, None]
    refused = [row for row in stored if row["status"] in ("wrong", "unparseable", "truncated")]
    assert {row["score"] for row in refused} == {0.0}


def test_a_part_of_a_tree_and_a_lacking_column_are_named(rows, tmp_path):
    shard = tmp_path / "shard-00000.parquet"
    shards.write(shard, [row for row in rows if row["path"] != [1, 1]], FORMAT_1)
    with pytest.raises(ValueError, match=r"shard-00000.parquet: question 'q0': node \[1, 1, 0\]"):
        records.read(shard)
    names = [column for column in FORMAT_1 if column.name != "status"]
    shards.write(shard, rows, pa.schema(names))
    with pytest.raises(ValueError, match=r"shard-00000.parquet: .* lacks the columns \['status'\]"):
        records.read(shard, ("role", "score"))
