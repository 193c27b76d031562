"""Intervals and tests against scipy, literals, and their promised coverage."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from malt_jax import stats


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


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["7", "8", "8"], 1),
        (["7", "8", "9"], 0),
        (["7", "8", "8", "7"], 0),
        (["9", "8", "7", "7", "8"], 1),
        (["", "", "5"], 2),
        (["", "4", "", "5", "5"], 3),
        (["", ""], None),
        ([], None),
    ],
)
def test_majority(answers, winner):
    assert stats.majority(answers) == winner


@given(st.lists(st.sampled_from(["", "1", "2", "3"]), max_size=9))
def test_majority_has_the_most_votes_and_is_the_earliest_of_them(answers):
    winner = stats.majority(answers)
    votes = [answer for answer in answers if answer]
    if winner is None:
        assert not votes
        return
    most = max(votes.count(answer) for answer in votes)
    earliest = next(i for i, x in enumerate(answers) if x and votes.count(x) == most)
    assert winner == earliest
