"""KTO's loss, of completions with labels, as pure functions of log-probabilities."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from malt_jax.learn.losses import Metrics, cleared, mean_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unpaired:
    """A completion a row and whether it is desirable.

    `completion, ref_completion: float32[B]`, log-probabilities summed over tokens as in
    `losses.Pairs`;
    `label: bool[B]`.
    """

    completion: Array
    ref_completion: Array
    label: Array


def kl_reference(mismatched: Array, ref_mismatched: Array, weights: Array | None = None) -> Array:
    """KTO's reference point z0 = max(0, mean log(pi(y' | x) / ref(y' | x))), without a gradient.

    Args:
        mismatched, ref_mismatched: float32[B], log-probabilities, summed over tokens, of
            completions y' each under another row's prompt x. TRL shifts the completions of a
            micro-batch by one row. Of the rows of a whole optimiser step, or accumulation changes
            the loss.
        weights: [B], 1 for rows of data, 0 for rows of padding.

    Returns:
        float32[], at least 0; 0 without rows.

    Source: KTO, arXiv 2402.01306.
    """
    counted = jnp.ones(mismatched.shape, bool) if weights is None else weights > 0
    ratio = jnp.where(counted, mismatched - ref_mismatched, 0.0)
    return jax.lax.stop_gradient(jnp.maximum(mean_of(ratio, counted), 0.0))


def kto_loss(
    rows: Unpaired,
    kl: Array | float,
    beta: float,
    *,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weights: Array | None = None,
    denominator: Array | float | None = None,
) -> tuple[Array, Metrics]:
    """L = E w_y (1 - sigmoid(s beta (log(pi / ref) - z0))), s = 1 where desirable and -1 elsewhere.

    Args:
        kl: z0, of `kl_reference`; its gradient is stopped here too.
        desirable_weight, undesirable_weight: w_y of the two labels, to balance their numbers.
        weights: [B], of each row in the sum of losses, 0 for rows of padding; the other figures
            count a row of any weight as one.
        denominator: divides the sum in place of the number of rows, as in `losses.sft_loss`; the
            sum of the weights, where they are other than 0 and 1.

    Returns:
        The loss; `chosen_reward` and `rejected_reward` (means of beta log(pi / ref) over desirable
        and undesirable rows), `margin` (their difference), `chosen_logp` and `rejected_logp`, the
        `kl` used, and `desirable` and `undesirable`, the numbers of rows. A mean of no rows is 0.
        Rows of padding may hold anything.

    Source: KTO, arXiv 2402.01306. TRL's `kto`.
    """
    counted = jnp.ones(rows.completion.shape, bool) if weights is None else weights > 0
    rows = cleared(rows, counted)
    label = rows.label.astype(bool)
    kl = jax.lax.stop_gradient(jnp.asarray(kl, jnp.float32))
    ratio = rows.completion - rows.ref_completion
    # 1 - sigmoid(x) as sigmoid(-x): near 0 the difference would round away.
    losses = jnp.where(
        label,
        desirable_weight * jax.nn.sigmoid(-beta * (ratio - kl)),
        undesirable_weight * jax.nn.sigmoid(beta * (ratio - kl)),
    )
    worth = 1.0 if weights is None else weights
    total = jnp.sum(jnp.where(counted, worth * losses, 0.0))
    chosen, rejected = counted & label, counted & ~label
    metrics = {
        "chosen_reward": mean_of(beta * ratio, chosen),
        "rejected_reward": mean_of(beta * ratio, rejected),
        "chosen_logp": mean_of(rows.completion, chosen),
        "rejected_logp": mean_of(rows.completion, rejected),
        "kl": kl,
        "desirable": jnp.sum(chosen).astype(jnp.float32),
        "undesirable": jnp.sum(rejected).astype(jnp.float32),
    }
    metrics["margin"] = metrics["chosen_reward"] - metrics["rejected_reward"]
    count = jnp.maximum(jnp.sum(counted).astype(jnp.float32), 1.0)
    return total / (count if denominator is None else denominator), metrics
