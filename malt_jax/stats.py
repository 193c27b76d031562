"""Intervals and tests for accuracies over questions, and the majority vote; seeded, in float64.

A single accuracy is reported with `wilson`, a difference between systems with `paired_bootstrap`.
The Wilson interval stays inside [0, 1] and keeps a width at 0 and n correct, where a percentile
bootstrap collapses to a point; and for a mean of zeros and ones the bootstrap has nothing to add.
`bootstrap` is for means that are not proportions, such as tokens a question.
"""

import math
from collections import Counter
from collections.abc import Sequence
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
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = correct / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # In exact arithmetic the ends are 0 and 1 here; rounding would leave 1e-17.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)


def bootstrap(values: ArrayLike, seed: int, resamples: int = 10_000) -> tuple[float, float, float]:
    """The mean of `values` [n] and its 95% percentile bootstrap interval: (mean, lo, hi).

    Questions are resampled with replacement `resamples` times; `seed` fixes the result.
    Raises ValueError if there are no values, they are not one-dimensional, or one is not finite.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"need finite values [n] with n >= 1, got shape {sample.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _BLOCK // sample.size)
    for start in range(0, resamples, rows):
        block = means[start : start + rows]
        picks = rng.integers(0, sample.size, (block.size, sample.size))
        block[:] = sample[picks].mean(axis=1)
    lo, hi = np.quantile(means, [0.025, 0.975])
    return float(sample.mean()), float(lo), float(hi)


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


def majority(answers: Sequence[str]) -> int | None:
    """Index of the first sample that gives the winning answer of a vote, or None if nobody votes.

    An empty string (nothing could be parsed) is no vote. Of the answers with the most votes the
    one that appeared first wins: the paper states no rule, and this one needs no random number.
    """
    votes = Counter(answer for answer in answers if answer)
    return answers.index(max(votes, key=votes.__getitem__)) if votes else None


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.asarray(a), np.asarray(b)
    if left.shape != right.shape:
        raise ValueError(f"scores must be of the same questions, got {left.shape}, {right.shape}")
    return left, right
