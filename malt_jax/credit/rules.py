"""Credit rules: from the scores of a forest's leaves to the values of all its nodes.

A rule is a function of two arrays, and trees are indices of parents, so that they may be ragged:

    (scores: float32[N], parents: int32[N]) -> values: float32[N]

`scores` are NaN where there is no verdict; `parents` are -1 at a root. Only the scores of leaves
count: what an inner node answered itself is its own fact.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.ops import segment_sum

Rule: TypeAlias = Callable[[Array, Array], Array]


@jax.jit
def mean_of_children(scores: Array, parents: Array) -> Array:
    """V(leaf) = its score, V(parent) = the mean of V(child) over its children that have a value.

    Args:
        scores: float32[N], NaN where a leaf is missing.
        parents: int32[N], -1 at a root. Nodes may stand in any order.

    Returns:
        float32[N], NaN for a node none of whose leaves has a score; it counts in no mean.

    Worked example: a root with the children a, b and c, of which a has leaves of score 1 and 0, b
    one of score 1 and c one of score NaN: V(a) = 1/2, V(b) = 1, V(c) = NaN, V(root) = 3/4.

    Source: arXiv 2412.01928, section 4.2. On a dense tree it is `credit.propagate`.
    """
    n, depth = len(parents), depths(parents)
    parent = jnp.where(parents < 0, n, parents)  # beyond the end: dropped from the sums
    has_children = segment_sum(jnp.ones(n, jnp.int32), parent, n) > 0
    leaves = jnp.where(has_children, jnp.nan, scores.astype(jnp.float32))

    def fold(i: Array, values: Array) -> Array:
        level = depth.max() - i
        counted = (depth == level) & ~jnp.isnan(values)
        total = segment_sum(jnp.where(counted, values, 0.0), parent, n)
        count = segment_sum(counted.astype(jnp.float32), parent, n)
        return jnp.where(has_children & (depth == level - 1), total / count, values)

    values: Array = jax.lax.fori_loop(0, depth.max(), fold, leaves)
    return values


def depths(parents: Array) -> Array:
    """How many nodes lie above each: int32[N], 0 at a root. `parents: int32[N]`, -1 at a root."""

    def climb(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        steps, depth, above = state
        further = jnp.where(above < 0, -1, parents[above])
        return steps + 1, depth + (above >= 0), further

    def climbing(state: tuple[Array, Array, Array]) -> Array:
        steps, _, above = state
        return (above >= 0).any() & (steps < len(parents))  # so that a circle ends

    start = jnp.int32(0), jnp.zeros(len(parents), jnp.int32), parents
    _, depth, _ = jax.lax.while_loop(climbing, climb, start)
    return depth
