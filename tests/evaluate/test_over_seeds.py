"""Intervals over seeds and questions, held to statsmodels' mean squares and scipy's Student's t."""

import numpy as np
import pytest

from malt_jax.evaluate import over_seeds, stats

ANSWERS = [[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 1], [0, 0, 1, 0, 0, 1]]
DIFFERENCES = [[1, -1, 0, 1, 0, 0], [1, 0, 1, 1, 0, 0], [1, 0, 1, 1, 1, 0]]


def test_the_error_is_that_of_the_crossed_random_model():
    """statsmodels' anova_lm gives the mean squares 0.388889 (seeds), 0.455556 (questions) and
    0.122222; the variance of the mean is (0.388889 + 0.455556 - 0.122222) / 18."""
    mean = over_seeds.mean(ANSWERS)
    assert mean.mean == pytest.approx(11 / 18)
    assert mean.error == pytest.approx(0.20030840)
    assert mean.freedom == pytest.approx(4.39737719)
    assert over_seeds.difference_interval(mean) == pytest.approx((0.07423641, 1.0))
    assert over_seeds.p_value(mean) == pytest.approx(0.03356256)


def test_a_difference_of_few_seeds_needs_a_wide_interval():
    mean = over_seeds.mean(DIFFERENCES)
    assert (mean.error, mean.freedom) == pytest.approx((0.25337232, 5.67888271))
    low, high = over_seeds.difference_interval(mean)
    assert (low, high) == pytest.approx((-0.18413324, 1.0)), "and it ends where differences do"
    assert over_seeds.p_value(mean) == pytest.approx(0.13274073)


def test_seeds_that_do_not_differ_add_nothing():
    """The error is then the one of a single seed: sd / sqrt(n)."""
    mean = over_seeds.mean([ANSWERS[0]] * 3)
    assert mean.error == pytest.approx(np.std(ANSWERS[0], ddof=1) / np.sqrt(6))
    assert mean.freedom == pytest.approx(5)


def test_a_share_is_wilsons_with_the_answers_that_its_error_is_worth():
    low, high = over_seeds.share_interval(over_seeds.mean([ANSWERS[0]] * 3))
    assert (low, high) == pytest.approx(stats.score_interval(4 / 6, 5, 2.57058184))  # t of 5
    wide = over_seeds.share_interval(over_seeds.mean(ANSWERS))
    assert 0 < wide[0] < 11 / 18 < wide[1] < 1
    assert over_seeds.share_interval(over_seeds.mean(np.ones((3, 40)))) == stats.wilson(40, 40)


def test_differences_that_are_all_alike_are_not_certain():
    mean = over_seeds.mean(np.ones((3, 10)))
    low, high = over_seeds.difference_interval(mean)
    assert high == 1
    assert (1 - low) / 2 == pytest.approx(1 - 0.025**0.1), "Clopper and Pearson's bound"
    assert over_seeds.p_value(mean) == pytest.approx(2**-9), "the sign test's"
    assert over_seeds.p_value(over_seeds.mean(np.zeros((2, 10)))) == 1


def test_intervals_hold_the_truth_in_95_of_100_cases():
    """With three seeds that differ by a third of what questions do."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        by_question, by_seed = rng.normal(size=60), rng.normal(size=(3, 1)) / 3
        values = 0.1 * (by_question + by_seed + rng.normal(size=(3, 60)))
        low, high = over_seeds.difference_interval(over_seeds.mean(values))
        held += low <= 0 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_of_one_seed_it_is_students_t_over_questions():
    """scipy.stats.ttest_1samp([1, 0, 1, 1, 0, -1], 0): t = 1, p = 0.36321746764912255."""
    mean = over_seeds.mean([[1, 0, 1, 1, 0, -1]])
    assert mean.mean / mean.error == pytest.approx(1)
    assert over_seeds.p_value(mean) == pytest.approx(0.36321747)


@pytest.mark.parametrize("values", [[[1.0], [0.0]], [1.0, 0.0], [[1, np.nan]] * 2, [[]]])
def test_what_has_no_variance_to_estimate_is_refused(values):
    with pytest.raises(ValueError, match=r"need finite values \[S, n\]"):
        over_seeds.mean(values)
