"""Advantages of siblings: how much more a sample is worth than what else its parent's policy drew.

A rule is a function on the values of the samples of one parent, of which the last axis is taken:

    values: float32[..., n] -> advantages: float32[..., n]

A sibling without a value (NaN) has none and counts in no mean. Siblings of one value have
advantages of 0, as does an only child. Along a path of a full tree the advantages of `siblings` add
up to R(leaf) - V(root), for a parent's value is its children's mean (arXiv 2412.01928, section
4.2): credit is split between the roles, never counted twice. Where leaves are missing the mean is
over those that are there, for the parent's value and for the advantages alike, and the sum along a
path still holds. Where branching or stopping depends on values seen, that mean is biased.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from malt_jax.credit.values import TOLERANCE

Advantages: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""values float32[..., n] -> advantages float32[..., n]."""


def siblings(values: np.ndarray) -> np.ndarray:
    """A(x) = V(x) - V(parent), the parent's value being its children's mean.

    Worked example: values (1, 1/3, 0) have the mean 4/9 and advantages (5/9, -1/9, -4/9).

    Source: the baseline of GRPO, arXiv 2402.03300, on the values of arXiv 2412.01928. Values that
    differ by rounding alone (`credit.values.TOLERANCE`) are one value.
    """
    exact = np.asarray(values, np.float64)
    counted = ~np.isnan(exact)
    count = np.maximum(counted.sum(-1, keepdims=True), 1)
    gap = exact - np.where(counted, exact, 0).sum(-1, keepdims=True) / count
    return np.where(np.abs(gap) > TOLERANCE, gap, np.where(counted, 0, np.nan)).astype(np.float32)


def leave_one_out(values: np.ndarray) -> np.ndarray:
    """A(x) = V(x) - mean of the other siblings' values = n / (n - 1) (V(x) - V(parent)).

    Worked example: values (1, 1/3, 0) have advantages (5/6, -1/6, -2/3).

    Source: RLOO, arXiv 2402.14740. The baseline does not contain the sample itself, so the policy
    gradient is unbiased; that of `siblings` is (n - 1) / n of it.
    """
    count = (~np.isnan(values)).sum(-1, keepdims=True)
    return (siblings(values) * (count / np.maximum(count - 1, 1))).astype(np.float32)


def mixed(values: np.ndarray, *, mix: float = 0.5, shaping: float = 0.5) -> np.ndarray:
    """A(x) = r(x) - mean of r over siblings, r(x) = V(x) + g (V(x) - b(x)) and
    b(x) = (1 - l) V(parent) + l (mean of the other siblings' values).

    Args:
        mix: l, the share of the leave-one-out baseline, in [0, 1].
        shaping: g, the weight of the gap to the baseline beside the value, at least 0.

    Worked example: values (1, 1/3, 0) with l = g = 1/2. b(1) = 2/9 + 1/12 = 11/36 and
    r(1) = 1 + 25/72; all r are (97/72, 19/72, -5/18), their mean is 4/9, and the advantages are
    (65/72, -13/72, -13/18): 13/8 of `siblings`, as for any three values.

    Source: MARS2's mixed parent and sibling baseline; the defaults are its own.
    """
    gap = siblings(values)
    below = (1 - mix) * gap + mix * leave_one_out(values)
    return siblings(gap + shaping * below)


def normalised(advantages: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A / s, s the population deviation of the siblings' values; 0 where they do not differ.

    Worked example: values (1, 1/3, 0) have s = 0.4157, and the advantages of `siblings` become
    (1.336, -0.267, -1.069).

    Source: GRPO, arXiv 2402.03300. With few siblings it blows small gaps up (Dr. GRPO, arXiv
    2503.20783): values (0.5, 0.5, 0.51) become the advantages of (0, 0, 1).
    """
    gap = siblings(values).astype(np.float64)
    count = np.maximum((~np.isnan(gap)).sum(-1, keepdims=True), 1)
    deviation = np.sqrt(np.nansum(gap**2, -1, keepdims=True) / count)
    return (advantages / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def scaled(advantages: np.ndarray) -> np.ndarray:
    """A / s over all rows of a role: float32[N], s their population deviation.

    Worked example: (1, 0, -1) has s = sqrt(2/3) and becomes (1.225, 0, -1.225).

    Signs stay as they are, and so does which sibling gains on which. A role's rows alone: over all
    roles together one role's spread sets the others' step (Dr. MAS, arXiv 2602.08847).
    """
    deviation = np.asarray(advantages, np.float64).std()
    return (advantages / (deviation if deviation > 0 else 1)).astype(np.float32)


def standardised(advantages: np.ndarray) -> np.ndarray:
    """(A - m) / s over all rows of a role: float32[N], m their mean and s their deviation.

    Worked example: (2, 1, 0, 1) has m = 1 and s = sqrt(1/2) and becomes (1.414, 0, -1.414, 0).

    Source: Dr. MAS, arXiv 2602.08847. Advantages of a parent's samples no longer add up to 0 then.
    """
    return scaled(advantages - np.asarray(advantages, np.float64).mean())
