"""Dense trees: leaf rewards to the values and labels of every node (MALT, section 4.2)."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Values = TypeVar("Values")

# Labels must be those of exact arithmetic, but nested float32 means round: the mean of 1/2, 2/3 and
# 1/3 comes out above a half. Over L levels of at most n children the rounding stays below
# L * (n + 1) * 2^-25 near a half: 2.4e-7 in a MALT tree (n = 3, L = 2), and below this tolerance up
# to L * (n + 1) = 33. Exact values other than a half lie at least 1 / (2 * n^L) away from it, or
# 1 / (2 * lcm(1..n)^L) where nodes are missing (1/72 for n = 3): far above it.
TOLERANCE = 1e-6


@jax.jit
def propagate(rewards: Array, mask: Array | None = None) -> tuple[Array, ...]:
    """Values of all nodes, V(parent) = mean of V(child) over its present children.

    Args:
        rewards: float32[B, n_1, ..., n_D], one reward a leaf; n_d children a node of depth d - 1.
        mask: bool, shaped like `rewards`, False where a leaf is missing; so is one of reward NaN.

    Returns:
        D float32 arrays: [B, n_1] for the first role, [B, n_1, n_2], ..., and the leaves' own
        values. A node none of whose leaves is present has value NaN and counts in no mean.

    Raises:
        ValueError: if `rewards` has no axis beside the batch, or `mask` has another shape.

    Source: arXiv 2412.01928, section 4.2. A mean over children, not over the leaves below: where
    leaves are missing the two differ.
    """
    if rewards.ndim < 2:
        raise ValueError(f"rewards must be [B, n_1, ..., n_D] with D >= 1, got {rewards.shape}")
    leaves = jnp.where(_present(rewards, mask), rewards.astype(jnp.float32), jnp.nan)
    values = [leaves]
    for _ in range(rewards.ndim - 2):
        values.append(jnp.nanmean(values[-1], axis=-1))
    return tuple(reversed(values))


@jax.jit
def label(values: Values, threshold: float | Array = 0.5) -> Values:
    """True where a value is strictly greater than the threshold; bool, in the shape of `values`.

    Args:
        values: float32 of any shape, or a pytree of such arrays.
        threshold: 0.5 in the paper, where a node with exactly half of its leaves right is negative.

    A value within `TOLERANCE` of the threshold counts as equal to it. NaN, the value of a missing
    node, is False: a caller that wants negatives must ask for `~label(values) & ~isnan(values)`.
    """
    return jax.tree.map(lambda value: value > threshold + TOLERANCE, values)


@jax.jit
def shuffle(rewards: Array, key: Array, mask: Array | None = None) -> Array:
    """The negative control: the same rewards on other leaves, so that values mean nothing.

    Permutes the rewards of all present leaves uniformly over the whole array, across questions.
    Their multiset stays the same; missing leaves (as in `propagate`) stay where they are.

    Args:
        rewards: float32[B, n_1, ..., n_D].
        key: a jax.random key.
        mask: bool, shaped like `rewards`, False where a leaf is missing.
    """
    present, flat = _present(rewards, mask).ravel(), rewards.ravel()
    # Both orders put the present leaves first: one as they stand, one at random.
    standing = jnp.argsort(~present, stable=True)
    random = jax.random.permutation(key, flat.size)
    random = random[jnp.argsort(~present[random], stable=True)]
    shuffled = flat.at[standing].set(flat[random])
    return jnp.where(present, shuffled, flat).reshape(rewards.shape)


def _present(rewards: Array, mask: Array | None) -> Array:
    if mask is None:
        return ~jnp.isnan(rewards)
    if mask.shape != rewards.shape:
        raise ValueError(f"mask {mask.shape} must have the shape of rewards {rewards.shape}")
    return mask & ~jnp.isnan(rewards)
