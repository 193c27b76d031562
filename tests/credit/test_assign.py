"""Rows to rows with reward, value and label."""

from itertools import product

import jax
import numpy as np
import pytest

from malt_jax import credit
from malt_jax.config.credit import CreditSettings

PLAIN = CreditSettings(0.5, False, 3, 2)
SHUFFLED = CreditSettings(0.5, True, 3, 2)


def dense(rewards: np.ndarray, by_depth: bool = False) -> list[dict]:
    """The rows of dense trees, a tree after the other or, as earlier versions stored them, a depth
    after the other."""
    rows = []
    for question, tree in enumerate(rewards):
        paths = [p for d in range(tree.ndim) for p in product(*map(range, tree.shape[: d + 1]))]
        for node, path in enumerate(paths):
            rows.append(
                {
                    "question_id": f"q{question}",
                    "node": node,
                    "parent": paths.index(path[:-1]) if len(path) > 1 else -1,
                    "path": path,
                    "score": tree[path].item() if len(path) == tree.ndim else None,
                }
            )
    for row in rows:
        if row["score"] is not None and np.isnan(row["score"]):
            row["score"] = None
    return sorted(rows, key=lambda row: len(row["path"])) if by_depth else rows


REWARDS = np.random.default_rng(3).choice([0, 1, np.nan], (7, 3, 2, 3), p=[0.5, 0.4, 0.1])


@pytest.mark.parametrize("by_depth", [False, True])
@pytest.mark.parametrize("settings", [PLAIN, SHUFFLED])
def test_equals_the_dense_rules_and_their_permutation(settings, by_depth):
    """For the shuffled control the same leaves get the same rewards as from the dense arrays."""
    rewards = REWARDS.astype(np.float32)
    if settings.shuffle_rewards:
        rewards = np.asarray(credit.shuffle(rewards, jax.random.key(5)))
    expected = {}
    for depth, values in enumerate(credit.propagate(rewards), 1):
        for index in np.ndindex(values.shape):
            expected[f"q{index[0]}", index[1:]] = float(values[index]), depth == 3
    for row in credit.assign(dense(REWARDS, by_depth), settings, 5):
        value, leaf = expected.pop((row["question_id"], row["path"]))
        if np.isnan(value):
            assert (row["reward"], row["value"], row["label"]) == (None, None, None)
        else:
            assert row["value"] == value
            assert row["label"] == (value > 0.5 + 1e-6)
            assert row["reward"] == (value if leaf else None)
    assert not expected


def test_the_order_of_rows_and_the_rest_of_them_stay():
    rows = dense(REWARDS)
    valued = credit.assign(rows, PLAIN, 0)
    assert [{name: row[name] for name in rows[0]} for row in valued] == rows
    assert "value" not in rows[0]


def test_a_ragged_tree_by_hand():
    """Two answers at once, and a third whose critique was worth two refinements."""
    placed = [(-1, 1.0), (-1, 0.0), (1, None), (2, 1.0), (2, 0.5)]
    rows = [
        {"question_id": "q", "node": node, "parent": parent, "score": score}
        for node, (parent, score) in enumerate(placed)
    ]
    valued = credit.assign(rows, CreditSettings(0.7, False, 3, 2), 0)
    assert [row["value"] for row in valued] == [1.0, 0.75, 0.75, 1.0, 0.5]
    assert [row["label"] for row in valued] == [True, True, True, True, False]
    assert [row["reward"] for row in valued] == [1.0, None, None, 1.0, 0.5]


def test_another_rule_is_a_function():
    def best_of_children(scores, parents):
        values = np.array(scores)
        for node in range(len(values) - 1, -1, -1):
            below = values[np.flatnonzero(np.asarray(parents) == node)]
            values[node] = below.max() if below.size else values[node]
        return values

    rows = dense(np.array([[[0.0, 1.0], [0.0, 0.0]]]))
    valued = credit.assign(rows, PLAIN, 0, best_of_children)
    assert [row["value"] for row in valued] == [1, 0, 0, 1, 0, 0]
    assert credit.assign([], PLAIN, 0) == []


def test_a_parent_that_is_not_there_is_named():
    rows = [row for row in dense(REWARDS) if row["question_id"] != "q2" or row["path"] != (1, 0)]
    with pytest.raises(ValueError, match=r"question 'q2': node \d+ has no parent 5 before it"):
        credit.assign(rows, PLAIN, 0)
