"""Intervals and tests for accuracies over questions, how many questions a test needs, pass@k and
majority@k. Seeded where random, in float64.

A single accuracy is reported with `wilson`, a difference between systems with `paired_bootstrap`.
The Wilson interval stays inside [0, 1] and keeps a width at 0 and n correct, where a percentile
bootstrap collapses to a point; and for a mean of zeros and ones the bootstrap has nothing to add.
`bootstrap` is for means that are not proportions, such as tokens a question.
"""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

_BLOCK = 1 << 20  # resampled values held at once: 8 MiB of indices


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (lo, hi) of a proportion `correct / n`.

    Raises ValueError unless 0 <= correct <= n, n >= 1 and 0 < confidence < 1.
    Source: Wilson, JASA 22 (1927), 209-212.
    """
    if not (n >= 1 and 0 <= correct <= n):
        raise ValueError(f"need 0 <= correct <= n and n >= 1, got correct={correct}, n={n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return score_interval(correct / n, n, NormalDist().inv_cdf(0.5 + confidence / 2))


def score_interval(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval (lo, hi) of a proportion `p` of `n` independent answers, which need
    be no whole number, where `z` is the quantile that a standardised error stays below."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # In exact arithmetic the ends are 0 and 1 here; rounding would leave 1e-17.
    return (0.0 if p == 0 else centre - half), (1.0 if p == 1 else centre + half)


def bootstrap(values: ArrayLike, seed: int, resamples: int = 10_000) -> tuple[float, float, float]:
    """The mean of `values` [n] and its 95% percentile bootstrap interval: (mean, lo, hi).

    Questions are resampled with replacement `resamples` times; `seed` fixes the result.
    Raises ValueError if there are no values, they are not one-dimensional, or one is not finite.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    sample = _finite(values, 1)
    _check_resamples(resamples)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _BLOCK // sample.size)
    for start in range(0, resamples, rows):
        block = means[start : start + rows]
        picks = rng.integers(0, sample.size, (block.size, sample.size))
        block[:] = sample[picks].mean(axis=1)
    lo, hi = np.quantile(means, [0.025, 0.975])
    return float(sample.mean()), float(lo), float(hi)


def nested_bootstrap(
    values: ArrayLike, seed: int, resamples: int = 10_000, *, same_questions: bool = False
) -> tuple[float, float, float]:
    """The mean of `values` [S, n], n questions under each of S seeds, and its 95% percentile
    interval over both: (mean, lo, hi).

    A resample draws S seeds with replacement, then n questions with replacement: anew for every
    drawn seed, or once for all of them with `same_questions`, which is right where a column is one
    question under every seed. What makes a question hard is then shared by the seeds, and drawing
    anew would let more seeds pass for more questions.

    Between few seeds the spread is underestimated, by the factor (S - 1) / S in variance; where
    seeds do not differ at all, the chance of single answers counts twice and the interval is up to
    sqrt(2) too wide. Raises ValueError as `bootstrap` does.
    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8; for
    `same_questions` Owen, Annals of Applied Statistics 1 (2007), 386-411.
    """
    sample = _finite(values, 2)
    _check_resamples(resamples)
    seeds, questions = sample.shape
    pick_seeds, pick_questions = np.random.default_rng(seed).spawn(2)
    means = np.empty(resamples)
    rows = max(1, _BLOCK // sample.size)
    for start in range(0, resamples, rows):
        block = means[start : start + rows]
        picks = (block.size, 1 if same_questions else seeds, questions)
        s = pick_seeds.integers(0, seeds, (block.size, seeds, 1))
        block[:] = sample[s, pick_questions.integers(0, questions, picks)].mean(axis=(1, 2))
    lo, hi = np.quantile(means, [0.025, 0.975])
    return float(sample.mean()), float(lo), float(hi)


def subsets(
    values: ArrayLike, seed: int, *, size: int = 100, count: int = 4
) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of the means of `count` random subsets of `values` [n].

    A subset holds `size` different questions; two subsets may share some. MALT reports four seeds
    of 100 questions in this way. Raises ValueError if n < size or count < 2, and for values that
    `bootstrap` refuses.
    """
    sample = _finite(values, 1)
    if not (1 <= size <= sample.size and count >= 2):
        raise ValueError(
            f"need 1 <= size <= n and count >= 2, got size={size}, n={sample.size}, count={count}"
        )
    rng = np.random.default_rng(seed)
    means = [rng.choice(sample, size, replace=False).mean() for _ in range(count)]
    return float(np.mean(means)), float(np.std(means, ddof=1))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, seed: int, resamples: int = 10_000
) -> tuple[float, float, float]:
    """mean(a) - mean(b) over the same questions [n], with its 95% interval: (difference, lo, hi).

    A resampled question takes both systems' scores with it, so what makes a question hard for
    both cancels. Raises ValueError as `bootstrap` does, and if the lengths differ.
    """
    left, right = _paired(a, b)
    return bootstrap(left.astype(np.float64) - right.astype(np.float64), seed, resamples)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided exact p-value that systems a and b, bool[n] correct or not, are equally accurate.

    Only the m questions on which they differ count; under the null hypothesis a wins
    Binomial(m, 1/2) of them. No differing question gives 1. Raises ValueError if lengths differ.
    Source: McNemar, Psychometrika 12 (1947), in the exact binomial form.
    """
    left, right = _paired(a, b)
    a_only, b_only = int(np.sum(left > right)), int(np.sum(right > left))
    m = a_only + b_only
    tail, ways = 0, 1  # ways = C(m, k), in exact integers
    for k in range(min(a_only, b_only) + 1):
        tail += ways
        ways = ways * (m - k) // (k + 1)
    return min(1.0, 2 * tail / 2**m)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: all hypotheses whose adjusted value is at most
    alpha can be rejected together, with a chance of at most alpha that one of them is true.

    Raises ValueError for a value outside [0, 1].
    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def questions_needed(
    difference: float, discordant: float, power: float = 0.8, confidence: float = 0.95
) -> int:
    """Questions on which two systems must be compared to find a difference in accuracy.

    `discordant` is the share of questions on which exactly one of them is right, `difference` the
    gap between their accuracies (its sign does not matter), `power` the chance that a two-sided
    McNemar test at `confidence` finds it. A normal approximation: the exact test needs a few more.
    Raises ValueError unless 0 < |difference| <= discordant <= 1 and the rest lies between 0 and 1.
    Source: Connor, Biometrics 43 (1987), 207-211.
    """
    gap = abs(difference)
    if not 0 < gap <= discordant <= 1:
        raise ValueError(
            f"need 0 < |difference| <= discordant <= 1, got difference={difference}, "
            f"discordant={discordant}"
        )
    for name, share in (("power", power), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {share}")
    z = NormalDist().inv_cdf
    spread = z(0.5 + confidence / 2) * math.sqrt(discordant)
    spread += z(power) * math.sqrt(discordant - gap**2)
    return math.ceil((spread / gap) ** 2)


def majority_at_k(answers: Sequence[str], right: Sequence[bool], k: int) -> float:
    """The chance that a vote over k of the n samples is right: a random k-subset in random order,
    judged as `votes.majority` does, so each of t answers with the most votes wins with chance
    1 / t.

    Exact: `answers` are counted, and a dynamic programme over the distinct ones adds up the
    subsets as integers. `right` says of each sample whether it is. Of equal answers some may be
    right (programs that behave alike on a few inputs): the first of them in a random order is
    right with the chance of any. Raises ValueError if the lengths differ, and unless 1 <= k <= n.
    """
    _check_k(len(answers), k)
    counts, correct = Counter(answers), Counter[str]()
    for answer, verdict in zip(answers, right, strict=True):
        correct[answer] += bool(verdict)
    silent = counts.pop("", 0)
    wins = Fraction(0)  # of the C(n, k) subsets, ties as the share that is won
    for answer in (a for a in counts if correct[a]):
        share = Fraction(correct[answer], counts[answer])
        for votes in range(1, min(counts[answer], k) + 1):
            # Subsets in which `answer` has `votes` and no other has more, by their size and by how
            # many answers have as many.
            ways = Counter({(votes, 1): math.comb(counts[answer], votes)})
            for other in counts.keys() - {answer}:
                wider = Counter[tuple[int, int]]()
                for (size, tied), many in ways.items():
                    for n in range(min(counts[other], votes, k - size) + 1):
                        wider[size + n, tied + (n == votes)] += many * math.comb(counts[other], n)
                ways = wider
            for (size, tied), many in ways.items():
                wins += share * Fraction(many * math.comb(silent, k - size), tied)
    return float(wins / math.comb(len(answers), k))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that k of n samples, of which `correct` are right, hold a right one, without bias:
    1 - C(n - c, k) / C(n, k), in exact integers and rounded once.

    Raises ValueError unless 0 <= correct <= n and 1 <= k <= n.
    Source: Chen et al., arXiv 2107.03374, section 2.1.
    """
    _check_k(n, k)
    if not 0 <= correct <= n:
        raise ValueError(f"need 0 <= correct <= n, got correct={correct}, n={n}")
    draws = math.comb(n, k)
    return (draws - math.comb(n - correct, k)) / draws


def auroc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """The area under the ROC curve: how often a positive has a higher score than a negative, equal
    scores counting half. None without a positive or without a negative.

    Args:
        scores: [N], finite. positive: bool[N].

    Worked example: the scores 0, 1/2, 1/2 and 1 of a negative, a positive, a negative and a
    positive make 3 1/2 of 4 pairs: 7/8.

    Source: Hanley and McNeil, Radiology 143 (1982), 29-36: it is Mann and Whitney's statistic.
    """
    values, right = _finite(scores, 1), np.asarray(positive, bool)
    above, below = values[right], np.sort(values[~right])
    if not len(above) or not len(below):
        return None
    lower = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(lower.sum() / (2 * len(above) * len(below)))


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"need 1 <= k <= n, got k={k}, n={n}; store more samples a question")


def _finite(values: ArrayLike, axes: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != axes or array.size == 0 or not np.isfinite(array).all():
        shape = "[n]" if axes == 1 else "[S, n]"
        raise ValueError(f"need finite values {shape}, none of it empty, got shape {array.shape}")
    return array


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.asarray(a), np.asarray(b)
    if left.shape != right.shape:
        raise ValueError(f"scores must be of the same questions, got {left.shape}, {right.shape}")
    return left, right
