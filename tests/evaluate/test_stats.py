"""Intervals and tests against scipy, literals, and their promised coverage."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from malt_jax.evaluate import stats


def test_wilson_literals():
    assert stats.wilson(5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-7)
    assert stats.wilson(81, 263) == pytest.approx((0.2552885, 0.3662096), abs=1e-7)
    lo, hi = stats.wilson(0, 10)
    assert lo == 0
    assert hi == pytest.approx(0.2775328, abs=1e-7)
    assert stats.wilson(10, 10) == pytest.approx((1 - hi, 1.0))


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_equals_scipy(n, share, confidence):
    correct = round(share * n)
    lo, hi = stats.wilson(correct, n, confidence)
    want = scipy.stats.binomtest(correct, n).proportion_ci(confidence, "wilson")
    assert (lo, hi) == pytest.approx((want.low, want.high), abs=1e-12)
    assert 0 <= lo <= correct / n <= hi <= 1


@pytest.mark.parametrize("p", [0.05, 0.3, 0.85])
def test_wilson_covers_95_percent(p):
    """Exact: the probability, under Binomial(100, p), of an interval that contains p."""
    inside = [lo <= p <= hi for lo, hi in (stats.wilson(k, 100) for k in range(101))]
    coverage = scipy.stats.binom.pmf(np.arange(101), 100, p) @ inside
    assert 0.93 < coverage < 0.975


def test_wilson_refuses_impossible_counts():
    for correct, n in [(0, 0), (3, 2), (-1, 2)]:
        with pytest.raises(ValueError, match=f"correct={correct}, n={n}"):
            stats.wilson(correct, n)
    with pytest.raises(ValueError, match="confidence"):
        stats.wilson(1, 2, 95)


def test_bootstrap_of_a_proportion_has_binomial_quantiles():
    """Resampled means of 30 ones and 70 zeros are Binomial(100, 0.3) / 100."""
    values = np.repeat([1, 0], [30, 70])
    mean, lo, hi = stats.bootstrap(values, seed=0, resamples=40_000)
    want = scipy.stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert mean == pytest.approx(0.3)
    assert (lo, hi) == pytest.approx(tuple(want), abs=0.0101)


def test_bootstrap_equals_scipy():
    values = np.random.default_rng(0).gamma(2, 3, size=80)
    mean, lo, hi = stats.bootstrap(values, seed=1)
    want = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert (lo, hi) == pytest.approx((want.low, want.high), abs=0.1 * (hi - lo))


def test_bootstrap_covers_95_percent():
    rng = np.random.default_rng(3)
    intervals = [stats.bootstrap(rng.normal(5, 2, 60), seed, 500)[1:] for seed in range(400)]
    coverage = np.mean([lo <= 5 <= hi for lo, hi in intervals])
    assert 0.91 < coverage < 0.98


def test_bootstrap_is_seeded_and_does_not_depend_on_its_blocks(monkeypatch):
    values = np.random.default_rng(4).normal(size=37)
    once = stats.bootstrap(values, seed=5, resamples=999)
    assert once == stats.bootstrap(values, seed=5, resamples=999)
    assert once != stats.bootstrap(values, seed=6, resamples=999)
    monkeypatch.setattr(stats, "_BLOCK", 100)
    assert once == stats.bootstrap(values, seed=5, resamples=999)


def test_bootstrap_refuses_bad_values():
    for values in ([], [[1.0]], [1.0, np.nan]):
        with pytest.raises(ValueError, match="finite values"):
            stats.bootstrap(values, seed=0)
    with pytest.raises(ValueError, match="resamples"):
        stats.bootstrap([1.0], seed=0, resamples=0)


def test_paired_bootstrap_uses_the_pairing():
    """b is right wherever a is, and on 20 questions of 200 more: a certain gain, if paired."""
    a = np.arange(200) < 90
    b = np.arange(200) < 110
    difference, lo, hi = stats.paired_bootstrap(b, a, seed=0)
    assert difference == pytest.approx(0.1)
    want = scipy.stats.binom.ppf([0.025, 0.975], 200, 0.1) / 200
    assert (lo, hi) == pytest.approx(tuple(want), abs=0.0051)
    shuffled = np.random.default_rng(0).permutation(a)
    _, unpaired_lo, unpaired_hi = stats.paired_bootstrap(b, shuffled, seed=0)
    assert unpaired_lo < 0 < lo
    assert unpaired_hi - unpaired_lo > 2 * (hi - lo)


def test_paired_bootstrap_changes_sign_with_the_order():
    a, b = np.random.default_rng(1).random((2, 50))
    difference, lo, hi = stats.paired_bootstrap(a, b, seed=0)
    assert stats.paired_bootstrap(b, a, seed=0) == pytest.approx((-difference, -hi, -lo))


def test_nested_bootstrap_of_one_seed_is_the_plain_one():
    values = np.repeat([1, 0], [30, 70])
    mean, lo, hi = stats.nested_bootstrap(values[None], seed=0, resamples=40_000)
    want = scipy.stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert mean == pytest.approx(0.3)
    assert (lo, hi) == pytest.approx(tuple(want), abs=0.0101)


@pytest.mark.parametrize("same_questions", [False, True])
def test_nested_bootstrap_has_the_variance_of_its_design(same_questions):
    """Its resampled means' variance in closed form, from the variances of rows, columns and rest.

    Four seeds on the same 50 questions: drawn anew for each seed, the questions' variance would be
    divided by four as if there were 200 of them.
    """
    rng = np.random.default_rng(0)
    values = 3 * rng.normal(size=50) + rng.normal(size=(4, 1)) + rng.normal(size=(4, 50))
    by_seed, by_question = (values.mean(axis, keepdims=True) for axis in (1, 0))
    rest = (values - by_seed - by_question + values.mean()).var()
    if same_questions:
        variance = by_seed.var() / 4 + by_question.var() / 50 + rest / 200
    else:
        variance = by_seed.var() / 4 + (by_question.var() + rest) / 200
    mean, lo, hi = stats.nested_bootstrap(values, 1, same_questions=same_questions)
    assert mean == pytest.approx(values.mean())
    assert hi - lo == pytest.approx(2 * 1.96 * variance**0.5, rel=0.04)


@pytest.mark.parametrize(
    ("spread", "same_questions", "least"),
    [(0.0, False, 0.95), (0.3, False, 0.88), (0.3, True, 0.9)],
)
def test_nested_bootstrap_covers_the_mean(spread, same_questions, least):
    """Of ten seeds that differ by `spread`, with questions that all of them share or do not."""
    rng, inside = np.random.default_rng(2), []
    for seed in range(300):
        seeds = spread * rng.normal(size=(10, 1))
        questions = rng.normal(size=(1 if same_questions else 10, 30))
        values = 5 + seeds + questions + rng.normal(size=(10, 30))
        _, lo, hi = stats.nested_bootstrap(values, seed, 300, same_questions=same_questions)
        inside.append(lo <= 5 <= hi)
    assert np.mean(inside) > least


def test_nested_bootstrap_is_seeded_and_does_not_depend_on_its_blocks(monkeypatch):
    values = np.random.default_rng(4).normal(size=(3, 7))
    once = stats.nested_bootstrap(values, seed=5, resamples=999)
    assert once != stats.nested_bootstrap(values, seed=6, resamples=999)
    monkeypatch.setattr(stats, "_BLOCK", 100)
    assert once == stats.nested_bootstrap(values, seed=5, resamples=999)
    for bad in ([1.0, 2.0], [[]], [[np.inf]]):
        with pytest.raises(ValueError, match=r"finite values \[S, n\]"):
            stats.nested_bootstrap(bad, seed=0)


def test_subsets_hold_no_question_twice():
    values = np.arange(10) < 6
    assert stats.subsets(values, 0, size=10) == (pytest.approx(0.6), pytest.approx(0))
    # Of 9 different ones out of 10, at most one zero of the four is missing: 5/9 or 6/9 are right.
    mean, deviation = stats.subsets(values, 0, size=9, count=200)
    assert mean == pytest.approx(0.6, abs=0.02)
    # Without replacement: p (1 - p) / size * (n - size) / (n - 1).
    assert deviation == pytest.approx((0.24 / 9 / 9) ** 0.5, rel=0.1)
    assert stats.subsets(values, 1, size=4) == stats.subsets(values, 1, size=4)
    assert stats.subsets(values, 1, size=4) != stats.subsets(values, 2, size=4)


def test_subsets_deviation_is_over_four_means_with_three_degrees_of_freedom(monkeypatch):
    class Rng:
        left = iter([[0.8], [0.9], [0.9], [1.0]])

        def choice(self, values, size, replace):
            assert not replace
            return np.array(next(self.left))

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Rng())
    assert stats.subsets(np.zeros(100), 0) == pytest.approx((0.9, (0.02 / 3) ** 0.5))


def test_subsets_larger_than_the_split_are_refused():
    with pytest.raises(ValueError, match="size=100, n=99"):
        stats.subsets(np.zeros(99), 0)
    with pytest.raises(ValueError, match="count=1"):
        stats.subsets(np.zeros(100), 0, count=1)


@pytest.mark.parametrize(
    ("difference", "discordant", "power", "confidence", "questions"),
    [
        (0.4, 0.5, 0.8, 0.95, 23),  # powerandsamplesize.com, McNemar's test, its own example
        (0.4, 0.5, 0.9, 0.9, 23),  # its one-sided example, at 5%
        (0.15, 0.45, 0.8, 0.95, 155),
        (-0.15, 0.45, 0.8, 0.95, 155),
        (0.03, 0.1, 0.8, 0.95, 870),
        (0.2, 0.2, 0.5, 0.95, 20),  # no spread at half power: 1.96^2 * 0.2 / 0.04 = 19.2
    ],
)
def test_questions_needed_literals(difference, discordant, power, confidence, questions):
    assert stats.questions_needed(difference, discordant, power, confidence) == questions


@pytest.mark.parametrize(("difference", "discordant"), [(0.1, 0.3), (0.05, 0.2), (0.2, 0.4)])
def test_questions_needed_have_the_power_asked_for(difference, discordant):
    """The power of McNemar's test on so many questions, without its continuity correction, from
    the exact distribution of the discordant pairs; counts come in steps, so not to the digit."""
    n = stats.questions_needed(difference, discordant)
    pairs = np.arange(1, n + 1)[:, None]
    wins = np.arange(n + 1)
    significant = np.abs(2 * wins - pairs) > 1.959964 * np.sqrt(pairs)
    chance = scipy.stats.binom.pmf(pairs, n, discordant) * scipy.stats.binom.pmf(
        wins, pairs, (1 + difference / discordant) / 2
    )
    assert chance[significant].sum() == pytest.approx(0.8, abs=0.03)


def test_questions_needed_refuses_what_cannot_be():
    for difference, discordant in ((0, 0.1), (0.2, 0.1), (0.1, 1.1), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="discordant <= 1, got"):
            stats.questions_needed(difference, discordant)
    with pytest.raises(ValueError, match="power must lie"):
        stats.questions_needed(0.1, 0.2, power=1)
    with pytest.raises(ValueError, match="confidence must lie"):
        stats.questions_needed(0.1, 0.2, confidence=95)


def test_mcnemar_literals():
    """a alone 1, b alone 5: 2 * (1 + 6) / 2^6. Agreement counts for nothing."""
    a = np.array([1] * 1 + [0] * 5 + [1] * 40, bool)
    b = np.array([0] * 1 + [1] * 5 + [1] * 40, bool)
    assert stats.mcnemar(a, b) == 14 / 64
    assert stats.mcnemar(a, a) == 1.0
    assert stats.mcnemar([True, False], [False, True]) == 1.0


@given(st.integers(0, 1500), st.integers(0, 1500))
def test_mcnemar_equals_scipy(a_only, b_only):
    a = np.repeat([True, False, True], [a_only, b_only, 3])
    b = np.repeat([False, True, True], [a_only, b_only, 3])
    m = a_only + b_only
    want = scipy.stats.binomtest(a_only, m).pvalue if m else 1.0
    assert stats.mcnemar(a, b) == pytest.approx(want, rel=1e-9, abs=1e-290)
    assert stats.mcnemar(a, b) == stats.mcnemar(b, a)


def test_scores_of_different_questions_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        stats.mcnemar([True] * 2, [True] * 3)
    with pytest.raises(ValueError, match=r"\(2,\), \(1,\)"):
        stats.paired_bootstrap([1.0, 2.0], [1.0], seed=0)


def test_holm_equals_statsmodels():
    """multipletests(..., method="holm"): 6 x 0.005, 5 x 0.01, 4 x 0.03, then none may be smaller
    than the one before it: 3 x 0.04 = 0.12."""
    adjusted = stats.holm([0.01, 0.04, 0.03, 0.005, 0.5, 0.2])
    assert adjusted == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.5, 0.4])
    assert stats.holm([]) == []
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"p-values must lie in \[0, 1\]"):
        stats.holm([0.1, 1.2])


def test_auroc_by_hand_and_as_scikit_learn():
    assert stats.auroc([0, 0.5, 0.5, 1], [False, True, False, True]) == 7 / 8
    assert stats.auroc([1, 0], [True, False]) == 1
    assert stats.auroc([0, 1], [True, False]) == 0
    assert stats.auroc([1, 2], [True, True]) is None
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    for levels in (2, 3, 50):
        scores, right = rng.integers(0, levels, 200) / levels, rng.random(200) < 0.4
        assert stats.auroc(scores, right) == pytest.approx(metrics.roc_auc_score(right, scores))
