"""Means of S seeds on the same n questions, with intervals and tests over seeds and questions.

Every seed answers every question, so scores have three sources of variance: questions, seeds, and
what is left. Their mean squares give the variance of the mean without bias, and its degrees of
freedom; with few seeds that differ, Student's t makes the intervals as wide as they must be. A
percentile bootstrap over three seeds cannot: it underestimates their variance by a third.

Source: Searle, Casella and McCulloch, Variance Components (1992), section 4.5, the two-way crossed
random model without replication; Satterthwaite, Biometrics Bulletin 2 (1946), 110-114. The same
variance is the two-way clustered one of Cameron, Gelbach and Miller (2011), corrected for few
clusters.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from malt_jax.evaluate import stats


@dataclass(frozen=True)
class Mean:
    """The mean of scores [S, n], its standard error over seeds and questions, and the degrees of
    freedom of that error. Without any variance the error is 0, and the degrees are n - 1."""

    mean: float
    error: float
    freedom: float
    questions: int


def mean(values: ArrayLike) -> Mean:
    """The mean of `values` [S, n], S seeds of n questions; with one seed its error is the usual one
    over questions.

    A source of variance whose estimate is negative counts as none. Raises ValueError unless S is at
    least 1 and n at least 2 and all values are finite.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 2 or sample.shape[1] < 2 or not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"need finite values [S, n], n at least 2, got {sample.shape}")
    seeds, questions = sample.shape
    if seeds == 1:
        square = _Square(float(np.sum((sample - sample.mean()) ** 2)), questions - 1)
        error = math.sqrt(square.mean / questions)
        return Mean(float(sample.mean()), error, questions - 1, questions)
    centre = sample.mean()
    of_seed, of_question = sample.mean(axis=1) - centre, sample.mean(axis=0) - centre
    rest = sample - centre - of_seed[:, None] - of_question
    left = _Square(float(np.sum(rest**2)), (seeds - 1) * (questions - 1))
    by_seed = _Square(questions * float(np.sum(of_seed**2)), seeds - 1)
    by_question = _Square(seeds * float(np.sum(of_question**2)), questions - 1)
    # Var(mean) = (MS_question + MS_seed - MS_error) / (S n), where both sources are there.
    sources = [square for square in (by_seed, by_question) if square.mean > left.mean]
    terms = [*((1.0, square) for square in sources), (1.0 - len(sources), left)]
    total = sum(sign * square.mean for sign, square in terms)
    spread = sum((sign * square.mean) ** 2 / square.freedom for sign, square in terms)
    freedom = total**2 / spread if spread else float(questions - 1)
    return Mean(float(centre), math.sqrt(total / sample.size), freedom, questions)


@dataclass(frozen=True)
class _Square:
    """A sum of squares and its degrees of freedom."""

    sum: float
    freedom: int

    @property
    def mean(self) -> float:
        # What rounding leaves of equal values is no variance.
        return self.sum / self.freedom if self.sum > 1e-18 else 0.0


def difference_interval(estimate: Mean, confidence: float = 0.95) -> tuple[float, float]:
    """The interval (lo, hi) of a mean difference in [-1, 1] by Student's t.

    Where no question and no seed differs from another, it holds what n questions cannot exclude:
    a share of them, up to Clopper and Pearson's bound, may be at either end.
    """
    if not estimate.error:
        unseen = 1 - ((1 - confidence) / 2) ** (1 / estimate.questions)
        centre = estimate.mean
        return centre - unseen * (centre + 1), centre + unseen * (1 - centre)
    reach = _quantile(0.5 + confidence / 2, estimate.freedom) * estimate.error
    return max(-1.0, estimate.mean - reach), min(1.0, estimate.mean + reach)


def share_interval(estimate: Mean, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (lo, hi) of a share whose questions count for less, because seeds differ:
    with the number of independent answers that would have its standard error, and Student's t.

    Source: Korn and Graubard, Survey Methodology 24 (1998), 193-201; Franco et al., Journal of
    Survey Statistics and Methodology 7 (2019), 334-364, for Wilson's form.
    """
    share = estimate.mean
    if not estimate.error:
        return stats.wilson(round(share * estimate.questions), estimate.questions, confidence)
    z = _quantile(0.5 + confidence / 2, estimate.freedom)
    return stats.score_interval(share, share * (1 - share) / estimate.error**2, z)


def p_value(estimate: Mean) -> float:
    """Two-sided p-value that a mean difference is zero: Student's t; of differences that are all
    alike and not zero, the sign test over questions."""
    from scipy import special

    if not estimate.error:
        return min(1.0, 2.0 ** (1 - estimate.questions)) if estimate.mean else 1.0
    return float(2 * special.stdtr(estimate.freedom, -abs(estimate.mean) / estimate.error))


def _quantile(share: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, share))
