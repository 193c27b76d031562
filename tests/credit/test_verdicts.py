"""What critiques say, and what that and a change are worth, with figures worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.credit import verdicts

MARKS = ("correct", "incorrect")
BASE = CreditSettings(verdict=MARKS)


@pytest.mark.parametrize(
    ("text", "accepts"),
    [
        ("It is correct.", True),
        ("It is incorrect.", False),  # a mark inside another word is none
        ("It looks correct. No: incorrect.", False),
        ("Incorrectly I thought: incorrect? No, correct", True),
        ("I am not sure.", None),
        ("correctness", None),
        ("", None),
    ],
)
def test_the_last_mark_counts(text, accepts):
    assert credit.verdict(text, MARKS) is accepts


def test_marks_may_hold_signs():
    assert credit.verdict("Verdict: (+)", ("(+)", "(-)")) is True
    assert credit.verdict("(+) or (-)", ("(+)", "(-)")) is False


def test_worth():
    assert [credit.of_verdict(said, 1.0) for said in (True, False, None)] == [1, 0, 0]
    assert [credit.of_verdict(said, 0.25) for said in (True, False, None)] == [0.25, 0.75, 0]
    assert math.isnan(credit.of_verdict(True, math.nan))
    pairs = [(0, 1), (0, 0), (1, 1), (1, 0), (0.5, 1)]
    assert [credit.of_change(*pair) for pair in pairs] == [1, 0.5, 0.5, 0, 0.75]


def test_what_a_node_read_is_the_nearest_answer_above_it():
    scores = np.array([0, np.nan, 1, np.nan, 1], np.float32)
    read = verdicts.read_scores(scores, np.array([-1, 0, 1, 2, -1]))
    np.testing.assert_array_equal(read, [np.nan, 0, 0, 1, np.nan])


def tree(solution: float | None) -> list[dict]:
    """A solution with two critiques, the first accepting it, each with two refinements."""
    texts = ["x", "correct", "incorrect", "", "", "", ""]
    roles = ["generator", "verifier", "verifier", *["refiner"] * 4]
    scores = [solution, None, None, 1, 0, 1, 1]
    rows = zip(texts, roles, scores, [-1, 0, 0, 1, 1, 2, 2], strict=True)
    return [
        {"question_id": "q", "node": node, "parent": parent, "score": score}
        | {"role": role, "completion": text}
        for node, (text, role, score, parent) in enumerate(rows)
    ]


def values(solution: float | None, **settings) -> list[float | None]:
    rows = credit.assign(tree(solution), dataclasses.replace(BASE, **settings), 0)
    return [row["value"] for row in rows]


def test_a_role_may_be_rewarded_for_its_verdict():
    """The critique that led to the better refinements was wrong about a right solution."""
    assert values(1) == [0.75, 0.5, 1, 1, 0, 1, 1]
    assert values(1, by_verdict=("verifier",)) == [0.75, 1, 0, 1, 0, 1, 1]
    assert values(0, by_verdict=("verifier",)) == [0.75, 0, 1, 1, 0, 1, 1]
    assert values(None, by_verdict=("verifier",)) == [0.75, None, None, 1, 0, 1, 1]


def test_a_role_may_be_rewarded_for_what_it_changed():
    assert values(1, by_change=("refiner",)) == [0.75, 0.5, 1, 0.5, 0, 0.5, 0.5]
    assert values(0, by_change=("refiner",)) == [0.75, 0.5, 1, 1, 0.5, 1, 1]


def test_labels_follow_the_reward_of_the_role():
    settings = dataclasses.replace(BASE, by_verdict=("verifier",))
    labels = [row["label"] for row in credit.assign(tree(1), settings, 0)]
    assert labels == [True, True, False, True, False, True, True]


def test_the_control_knows_no_truth_about_what_was_read():
    """Solutions' scores are permuted among solutions, so that a verdict's reward says nothing."""
    rows = [row | {"question_id": f"q{i}"} for i in range(40) for row in tree(float(i % 2))]
    settings = dataclasses.replace(BASE, by_verdict=("verifier",), shuffle_rewards=True)
    rewarded = credit.assign(rows, settings, 0)
    accepted = np.array([row["value"] for row in rewarded if row["completion"] == "correct"])
    truth = np.arange(40) % 2
    assert sorted(accepted) == sorted(truth)
    assert 10 < (accepted == truth).sum() < 30


def test_columns_are_what_the_settings_read():
    placed = ("question_id", "node", "parent", "score")
    assert credit.columns(CreditSettings()) == placed
    assert credit.columns(CreditSettings(label="quantile")) == (*placed, "role")
    own = dataclasses.replace(BASE, by_change=("refiner",))
    assert credit.columns(own) == (*placed, "role", "completion")
