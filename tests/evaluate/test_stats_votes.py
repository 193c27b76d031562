"""What k of n stored samples would have made of a question by a vote, against every subset there
is."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from malt_jax.evaluate import stats
from malt_jax.tasks import votes


@pytest.mark.parametrize(
    ("answers", "right", "k", "chance"),
    [
        ("2 3", "2", 1, 1 / 2),
        ("2 3", "2", 2, 1 / 2),  # a tie, either first
        ("2 2 3", "2", 1, 2 / 3),
        ("2 2 3", "2", 2, 2 / 3),  # one pair of two, two ties: (1 + 2 / 2) / 3
        ("2 2 3", "2", 3, 1),
        ("2 3 4", "2", 3, 1 / 3),
        ("2 3 4", "2 3", 3, 2 / 3),  # two spellings, both right
        ("2 - -", "2", 1, 1 / 3),
        ("2 - -", "2", 2, 2 / 3),  # silence is no vote
        ("2 - -", "2", 3, 1),
        ("- -", "2", 2, 0),
        ("3 3", "2", 1, 0),
        ("2 2 3 3 4", "2", 3, 13 / 30),  # of ten: 22x three times; 234 four times, a third of each
    ],
)
def test_majority_at_k_literals(answers, right, k, chance):
    given_answers = ["" if answer == "-" else answer for answer in answers.split()]
    verdicts = [answer in right.split() for answer in given_answers]
    assert stats.majority_at_k(given_answers, verdicts, k) == pytest.approx(chance, rel=1e-15)


@given(st.lists(st.sampled_from(["", "1", "2", "3", "4"]), min_size=1, max_size=6), st.data())
def test_majority_at_k_equals_every_ordered_draw(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    right = [bool(answer) and data.draw(st.booleans()) for answer in answers]
    wins = []
    for draw in itertools.permutations(range(len(answers)), k):
        winner = votes.majority([answers[i] for i in draw])
        wins.append(winner is not None and right[draw[winner]])
    assert stats.majority_at_k(answers, right, k) == pytest.approx(np.mean(wins), rel=1e-12)


def test_majority_at_k_is_exact_where_enumeration_is_not_possible():
    """C(60, 30) is about 1e17. Two answers, 31 to 29: right with the hypergeometric chance of 16
    and more of 30, and half of that of 15."""
    answers = ["2"] * 31 + ["3"] * 29
    chance = stats.majority_at_k(answers, [a == "2" for a in answers], 30)
    law = scipy.stats.hypergeom(60, 31, 30)
    assert chance == pytest.approx(law.sf(15) + law.pmf(15) / 2, rel=1e-12)
    # Sixty answers that differ tie whatever is drawn.
    assert stats.majority_at_k([str(i) for i in range(60)], [True] + [False] * 59, 30) == 1 / 60


def test_of_equal_answers_some_may_be_right():
    """A vote of three names either of two equal answers; of the three votes of two one names 1, and
    so does half of two ties: (1 + 2 / 2) / 3 / 2."""
    assert stats.majority_at_k(["1", "1", "2"], [True, False, False], 3) == 1 / 2
    assert stats.majority_at_k(["1", "1", "2"], [True, False, False], 2) == 1 / 3


def test_majority_at_k_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="k=3, n=2"):
        stats.majority_at_k(["1", "2"], [True, False], 3)
    with pytest.raises(ValueError, match="zip"):
        stats.majority_at_k(["1", "2"], [True], 1)


@pytest.mark.parametrize(
    ("n", "correct", "k", "chance"),
    [(5, 1, 1, 0.2), (5, 2, 2, 0.7), (5, 4, 2, 1), (5, 0, 5, 0), (5, 1, 5, 1), (3, 1, 2, 2 / 3)],
)
def test_pass_at_k_literals(n, correct, k, chance):
    assert stats.pass_at_k(n, correct, k) == chance


@given(st.integers(1, 8), st.data())
def test_pass_at_k_equals_every_subset(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    hits = [min(draw) < correct for draw in itertools.combinations(range(n), k)]
    assert stats.pass_at_k(n, correct, k) == pytest.approx(np.mean(hits))


def test_pass_at_k_keeps_its_digits():
    """1 - C(n - c, k) / C(n, k) in floats would be 0 here, and the binomials overflow."""
    assert stats.pass_at_k(10**17, 1, 1) == 1e-17
    assert stats.pass_at_k(4000, 1, 2000) == 0.5
    for n, correct, k in [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 0)]:
        with pytest.raises(ValueError, match="need "):
            stats.pass_at_k(n, correct, k)
