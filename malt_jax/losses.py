"""The training losses as pure functions of log-probabilities: (loss, metrics)."""

import jax
import jax.numpy as jnp
from jax import Array

Metrics = dict[str, Array]


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


def dpo_loss(
    chosen: Array,
    rejected: Array,
    ref_chosen: Array,
    ref_rejected: Array,
    beta: float | Array = 0.2,
    *,
    weights: Array | None = None,
    denominator: Array | float | None = None,
) -> tuple[Array, Metrics]:
    """L = -E log sigmoid(r(y_w) - r(y_l)), implicit reward r(y) = beta log(pi(y|x) / ref(y|x)).

    Args:
        chosen, rejected: float32[B], log pi(y | x), summed over the completion's tokens.
        ref_chosen, ref_rejected: float32[B], the same under the frozen reference policy.
        beta: strength of the pull towards the reference; 0.2 in MALT.
        weights: [B], 1 for rows of data, 0 for rows of padding.
        denominator: divides the sum in place of the number of rows, as in `sft_loss`.

    Returns:
        The loss, and as means over rows `accuracy` (share with r(y_w) > r(y_l)), `margin`
        (r(y_w) - r(y_l)), `chosen_reward` and `rejected_reward`; `pairs`, the number of rows.
        Rows of padding may hold anything. No rows give 0.

    Source: Rafailov et al., arXiv 2305.18290, equation 7.
    """
    counted = jnp.ones(chosen.shape, bool) if weights is None else weights > 0
    pairs = jnp.sum(counted).astype(jnp.float32)
    # Padding is cleared here, not after the logarithm, or its NaN would reach the gradient.
    chosen_reward = jnp.where(counted, beta * (chosen - ref_chosen), 0.0)
    rejected_reward = jnp.where(counted, beta * (rejected - ref_rejected), 0.0)
    margin = chosen_reward - rejected_reward
    losses = jnp.where(counted, -jax.nn.log_sigmoid(margin), 0.0)
    rows = jnp.maximum(pairs, 1.0)
    metrics = {
        "accuracy": jnp.sum(margin > 0) / rows,
        "margin": jnp.sum(margin) / rows,
        "chosen_reward": jnp.sum(chosen_reward) / rows,
        "rejected_reward": jnp.sum(rejected_reward) / rows,
        "pairs": pairs,
    }
    return jnp.sum(losses) / (rows if denominator is None else denominator), metrics
