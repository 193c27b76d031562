"""The training losses as pure functions of log-probabilities.

A preference loss is a function Pairs -> float32[B], a loss a pair; its settings (beta and the like)
are keywords, bound with functools.partial. `sft_loss` and `preference_loss` reduce to (loss,
metrics); KTO's is in `learn.unpaired`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairs:
    """A chosen and a rejected completion a row, for the same prompt.

    `chosen, rejected: float32[B]`, log pi(y | x) summed over the completion's tokens; `ref_chosen,
    ref_rejected: float32[B]`, the same under the frozen reference policy; `chosen_tokens,
    rejected_tokens: int32[B]`, how many tokens that were, the end token included.
    """

    chosen: Array
    rejected: Array
    ref_chosen: Array
    ref_rejected: Array
    chosen_tokens: Array
    rejected_tokens: Array


PairLoss = Callable[[Pairs], Array]


def token_logprobs(logits: Array, targets: Array) -> Array:
    """log p(y_t) = z_t[y_t] - log sum_v exp z_t[v], in float32.

    Args:
        logits: float32[..., T, V]; position t predicts `targets[..., t]`, so the caller shifts.
        targets: int32[..., T].

    Returns:
        float32[..., T].
    """
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def sft_loss(
    logps: Array,
    mask: Array,
    *,
    weights: Array | None = None,
    denominator: Array | float | None = None,
) -> tuple[Array, Metrics]:
    """L = -1/N sum_b sum_t m[b, t] log p(y[b, t]), N = sum m: the mean over completion tokens.

    Args:
        logps: float32[B, T], log-probability of each target token.
        mask: [B, T], 1 (or True) on completion tokens, the end token included, 0 elsewhere.
        weights: [B], 1 for rows of data, 0 for rows of padding.
        denominator: divides the sum in place of N. A batch split into K micro-batches whose
            gradients are averaged has the gradient of the whole if each passes N(whole) / K.

    Returns:
        The loss, and `nll` (the mean over this call's own tokens) and `tokens` (N). Positions
        that do not count may hold anything, -inf and NaN too. N = 0 gives 0.

    Source: MALT (arXiv 2412.01928), section 4.3, L_SFT, averaged over tokens.
    """
    counted = mask.astype(bool) if weights is None else mask.astype(bool) & (weights[:, None] > 0)
    total = -jnp.sum(jnp.where(counted, logps, 0.0))
    tokens = jnp.sum(counted).astype(jnp.float32)
    nll = total / jnp.maximum(tokens, 1.0)
    loss = nll if denominator is None else total / denominator
    return loss, {"nll": nll, "tokens": tokens}


def _log_ratio(pairs: Pairs) -> Array:
    """h = log(pi(y_w) / ref(y_w)) - log(pi(y_l) / ref(y_l)), float32[B]."""
    return (pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected)


def sigmoid(pairs: Pairs, *, beta: float) -> Array:
    """L = -log sigmoid(beta h), h the log-ratio of chosen to rejected against the reference.

    Source: DPO, arXiv 2305.18290, equation 7. TRL's `sigmoid`.
    """
    return -jax.nn.log_sigmoid(beta * _log_ratio(pairs))


def hinge(pairs: Pairs, *, beta: float) -> Array:
    """L = max(0, 1 - beta h): no more pull once the margin is 1.

    Source: SLiC-HF, arXiv 2305.10425; with a reference, RSO, arXiv 2309.06657. TRL's `hinge`.
    """
    return jax.nn.relu(1 - beta * _log_ratio(pairs))


def ipo(pairs: Pairs, *, beta: float) -> Array:
    """L = (h - 1 / (2 beta))^2 with h of log-probabilities averaged over tokens, as TRL has it.

    Regresses to a finite margin, so certain preferences do not run away. The paper writes
    sequence log-probabilities; TRL's `ipo` divides by the number of completion tokens, and says
    that the authors did so too. Its beta is the paper's tau.

    Source: arXiv 2310.12036, equation 17.
    """
    return (_log_ratio(per_token(pairs)) - 1 / (2 * beta)) ** 2


def robust(pairs: Pairs, *, beta: float, noise: float) -> Array:
    """`sigmoid` for labels of which a share `noise` is flipped: unbiased for the clean loss.

    L = [(1 - e) l(h) - e l(-h)] / (1 - 2 e), l `sigmoid`'s loss and e = `noise`, in [0, 0.5).
    May be negative. Raises ValueError for `noise` outside that range.

    Source: arXiv 2403.00409. TRL's `robust`, where e is `label_smoothing`.
    """
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise is {noise}; the share of flipped labels must be in [0, 0.5)")
    margin = beta * _log_ratio(pairs)
    kept, flipped = -jax.nn.log_sigmoid(margin), -jax.nn.log_sigmoid(-margin)
    return ((1 - noise) * kept - noise * flipped) / (1 - 2 * noise)


def per_token(pairs: Pairs) -> Pairs:
    """The pairs with log-probabilities averaged over tokens, as completions of one token each.

    A completion without tokens keeps its sum.
    """
    chosen = jnp.maximum(pairs.chosen_tokens, 1)
    rejected = jnp.maximum(pairs.rejected_tokens, 1)
    return Pairs(
        pairs.chosen / chosen,
        pairs.rejected / rejected,
        pairs.ref_chosen / chosen,
        pairs.ref_rejected / rejected,
        jnp.ones_like(chosen),
        jnp.ones_like(rejected),
    )


def length_normalised(pairs: Pairs, *, loss: PairLoss) -> Array:
    """`loss` of log-probabilities averaged over tokens, so that a long completion weighs no more.

    Source: Tulu 3, arXiv 2411.15124, where `loss` is `sigmoid`. That is TRL's `sigmoid_norm`.
    """
    return loss(per_token(pairs))


def rpo(
    pairs: Pairs, *, loss: PairLoss, alpha: float, tokens: Array | float | None = None
) -> Array:
    """`loss` + alpha NLL(chosen) / tokens: an SFT term that keeps the chosen likely.

    Args:
        tokens: None divides by the chosen completion's own tokens, so that pairs weigh the same;
            that is the paper's. The mean number of chosen tokens a pair, over the optimiser step,
            makes it a mean over tokens: that is TRL's (`rpo_alpha` in older versions, loss_type
            ["sigmoid", "sft"] with loss_weights [1, alpha] in newer ones).

    Source: arXiv 2404.19733, equation 1.
    """
    lengths = jnp.maximum(pairs.chosen_tokens, 1)
    return loss(pairs) - alpha * pairs.chosen / (lengths if tokens is None else tokens)


def weighted(pairs: Pairs, *, loss: PairLoss, weights: Array) -> Array:
    """`loss` of each pair times its weight, float32[B]; a mean divides by the sum of weights."""
    return weights * loss(pairs)


def preference_loss(
    pairs: Pairs,
    loss: PairLoss,
    beta: float,
    *,
    weights: Array | None = None,
    denominator: Array | float | None = None,
) -> tuple[Array, Metrics]:
    """The mean of a preference loss over pairs, and what the policy makes of them.

    Args:
        loss: one of this module's, its settings bound.
        beta: scale of the implicit reward r(y) = beta log(pi(y | x) / ref(y | x)) in the metrics,
            of whole completions for every loss, as in TRL.
        weights: [B], 1 for rows of data, 0 for rows of padding.
        denominator: divides the sum in place of the number of rows, as in `sft_loss`.

    Returns:
        The loss, and as means over rows `accuracy` (share with r(y_w) > r(y_l); a tie is no win),
        `margin` (r(y_w) - r(y_l)), `chosen_reward`, `rejected_reward`, `chosen_logp` and
        `rejected_logp`; `pairs`, the number of rows. Rows of padding may hold anything. No rows
        give 0.
    """
    counted = jnp.ones(pairs.chosen.shape, bool) if weights is None else weights > 0
    pairs = cleared(pairs, counted)
    rows = jnp.sum(counted).astype(jnp.float32)
    total = jnp.sum(jnp.where(counted, loss(pairs), 0.0))
    chosen_reward = beta * (pairs.chosen - pairs.ref_chosen)
    rejected_reward = beta * (pairs.rejected - pairs.ref_rejected)
    metrics = {
        "accuracy": mean_of(chosen_reward > rejected_reward, counted),
        "margin": mean_of(chosen_reward - rejected_reward, counted),
        "chosen_reward": mean_of(chosen_reward, counted),
        "rejected_reward": mean_of(rejected_reward, counted),
        "chosen_logp": mean_of(pairs.chosen, counted),
        "rejected_logp": mean_of(pairs.rejected, counted),
        "pairs": rows,
    }
    return total / (jnp.maximum(rows, 1.0) if denominator is None else denominator), metrics


def cleared(rows: Any, counted: Array) -> Any:
    """Zeros where a row is padding: before any loss, or its NaN would reach the gradient."""
    return jax.tree.map(lambda x: jnp.where(counted, x, jnp.zeros_like(x)), rows)


def mean_of(values: Array, counted: Array) -> Array:
    """The mean of the rows that count; 0 of none."""
    return jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(jnp.sum(counted), 1)
