"""Labels that follow from other samples' values, where a fixed threshold finds nothing to learn
from: on questions that are hard for the team, and as it gets better."""

from collections.abc import Mapping, Sequence

import numpy as np

from malt_jax.credit.values import TOLERANCE


def quantiles(values: Mapping[str, Sequence[float] | np.ndarray], q: float) -> dict[str, float]:
    """By role, the `q`-quantile of its samples' values, one of them: the smallest that at least the
    share `q` of them do not exceed. NaN counts for nothing; a role without a value has none.

    Args:
        values: float32[N] of each role.
        q: in [0, 1); 0 gives the smallest value.

    Worked example: of the values 0, 1/3, 2/3 and 1 the 0.5-quantile is 1/3, so that 2/3 and 1 are
    above it; of 0, 0, 0 and 1 it is 0.

    Source: growing thresholds as of arXiv 2412.17256, relative to what the role does by then.
    """
    present = {
        role: array[~np.isnan(array)]
        for role, of_role in values.items()
        for array in [np.asarray(of_role, np.float32)]
    }
    return {
        role: float(np.quantile(array, q, method="inverted_cdf"))
        for role, array in present.items()
        if len(array)
    }


def above_quantile(
    values: np.ndarray, roles: Sequence[str], cuts: Mapping[str, float]
) -> np.ndarray:
    """Whether a sample's value is above that of its role in `cuts`: bool[N].

    Args:
        values: float32[N], NaN where no leaf below was graded, which is no positive.
        roles: of each sample. One without a cut is no positive.
        cuts: as of `quantiles`. A value within `TOLERANCE` of it counts as equal.
    """
    cut = np.array([cuts.get(role, np.nan) for role in roles], np.float64)
    return np.greater(values, cut + TOLERANCE)


def above_parent(values: np.ndarray, parents: np.ndarray, questions: Sequence[str]) -> np.ndarray:
    """Whether a sample's value is above its parent's, V(x) > V(parent), a root's above the mean of
    its question's roots: bool[N]. In a tree where V(parent) is the mean of its children, a family
    whose values differ always has a positive and a negative, however hard the question.

    Args:
        values: float32[N], NaN where no leaf below was graded; it is no positive, and no root of
            the mean.
        parents: int32[N], -1 at a root.
        questions: the tree of each sample.

    Worked example: roots of values 1/3 and 0, and below the first children of 1, 0 and 0. Their
    mean is 1/6, so 1/3 is positive and 0 is not; of the children 1 is, which is above 1/3. By a
    threshold of 1/2 the child of 1 alone would be positive, and no root.
    """
    names, trees = np.unique(np.asarray(questions), return_inverse=True)
    counted = (parents < 0) & ~np.isnan(values)
    sums = np.bincount(trees[counted], values[counted], minlength=len(names))
    with np.errstate(invalid="ignore"):
        roots = sums / np.bincount(trees[counted], minlength=len(names))
    baseline = np.where(parents < 0, roots[trees], values[parents])
    return np.greater(values, baseline + TOLERANCE)
