"""Labels by other samples' values: worked figures, and what must hold of any tree."""

from dataclasses import replace

import numpy as np
import pytest

from malt_jax import credit
from malt_jax.config.credit import CreditSettings

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "q", "cut"),
    [
        ([0, 1 / 3, 2 / 3, 1], 0.5, 1 / 3),
        ([0, 1 / 3, 2 / 3, 1], 0.75, 2 / 3),
        ([0, 1 / 3, 2 / 3, 1], 0.0, 0.0),
        ([0, 0, 0, 1], 0.5, 0.0),
        ([1, 1, NAN, 0], 0.5, 1.0),
    ],
)
def test_a_quantile_is_one_of_the_values(values, q, cut):
    assert credit.quantiles({"a": values, "b": [NAN]}, q) == {"a": np.float32(cut)}


def test_each_role_has_its_own_quantile():
    """What is good for a generator is poor for a refiner that reads it."""
    values, roles = np.float32([0.2, 0.4, 0.6, 0.8, NAN]), ["a", "a", "b", "b", "b"]
    cuts = credit.quantiles({"a": values[:2], "b": values[2:]}, 0.5)
    assert credit.above_quantile(values, roles, cuts).tolist() == [False, True, False, True, False]
    assert not credit.above_quantile(values, ["c"] * 5, cuts).any()


def test_above_the_parent_by_hand():
    """Roots of 1/3 and 0, the first one's children 1, 0 and 0; and another question's only root,
    which is not above itself."""
    values = np.float32([1 / 3, 0, 1, 0, 0, 1, NAN])
    parents = np.int32([-1, -1, 0, 0, 0, -1, -1])
    labels = credit.above_parent(values, parents, ["q"] * 5 + ["r"] * 2)
    assert labels.tolist() == [True, False, True, False, False, False, False]


def hard_question(rewards: list[list[int]]) -> list[dict]:
    """A role of two samples and one of three below each."""
    rows = [
        {"question_id": "q", "node": i, "parent": -1, "role": "a", "score": None} for i in (0, 1)
    ]
    return rows + [
        {"question_id": "q", "node": 2 + 3 * i + j, "parent": i, "role": "b", "score": score}
        for i, of_parent in enumerate(rewards)
        for j, score in enumerate(of_parent)
    ]


RARE = [[1, 0, 0], [0, 0, 0]]  # no root passes a threshold of a half


@pytest.mark.parametrize(
    ("rule", "threshold", "positives"),
    [("threshold", 0.5, [2]), ("quantile", 0.5, [0, 2]), ("parent", 0.5, [0, 2])],
)
def test_assign_by_each_rule(rule, threshold, positives):
    settings = CreditSettings(threshold=threshold, label=rule)
    labelled = credit.assign(hard_question(RARE), settings, 0)
    assert [row["node"] for row in labelled if row["label"]] == positives


def test_a_family_whose_values_differ_has_both_labels_by_its_parent():
    """However rare right answers are; and siblings that are worth the same have none."""
    random = np.random.default_rng(0)
    for _ in range(20):
        rewards = (random.random((2, 3)) < 0.2).astype(int).tolist()
        rows = credit.assign(hard_question(rewards), CreditSettings(label="parent"), 0)
        for family in ([0, 1], [2, 3, 4], [5, 6, 7]):
            labels = {rows[i]["label"] for i in family}
            differ = len({rows[i]["value"] for i in family}) > 1
            assert labels == ({True, False} if differ else {False})


def test_the_quantile_is_of_all_shards_together():
    """Not of each alone: that would be another one for other config.sample.questions_per_shard."""
    settings = CreditSettings(threshold=0.5, label="quantile")
    shards = [hard_question([[1, 1, 1], [1, 1, 0]]), hard_question([[0, 0, 0], [0, 0, 0]])]
    cuts = credit.cuts_of(shards, settings, 0)
    assert cuts == {"a": 0.0, "b": 0.0}
    labels = [row["label"] for row in credit.assign(shards[0], settings, 0, cuts=cuts)]
    assert labels == [True, True, True, True, True, True, True, False]
    assert credit.cuts_of(iter([None]), replace(settings, label="parent"), 0) == {}
