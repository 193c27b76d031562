"""Policy gradients as pure functions of log-probabilities, a figure a token; none is reduced.

    log_ratio = log pi(y_t) - b_t

is that of the policy now to the one that sampled, b_t the log-probability that y_t was sampled
with. An objective is to be raised: L = -1/N sum_t objective_t, N the tokens of the whole optimiser
step. A mean over each sequence or turn first would make long wrong answers cheap (Dr. GRPO, arXiv
2503.20783).

Arrays are float32[...] of one shape, with an advantage a token: that of its completion.
"""

import jax
import jax.numpy as jnp
from jax import Array


def reinforce(logps: Array, log_ratio: Array, advantages: Array, *, truncate: float = 0.0) -> Array:
    """A log pi(y_t), or w A log pi(y_t) with the truncated importance weight w = min(r, c), which
    has no gradient.

    Args:
        logps: log pi(y_t).
        truncate: c, the largest weight; 0 takes none, and all tokens weigh 1.

    Worked example: log pi = -1, r = 3, A = 0.5 have -0.5 without weights and -1 with c = 2.

    Source: REINFORCE; truncated weights: IMPALA, arXiv 1802.01561; on tokens: CISPO, arXiv
    2506.13585. TRL's `cispo`.
    """
    if not truncate:
        return advantages * logps
    weights = jax.lax.stop_gradient(jnp.minimum(jnp.exp(log_ratio), truncate))
    return weights * advantages * logps


def clipped(
    log_ratio: Array, advantages: Array, *, low: float, high: float, truncate: float = 0.0
) -> Array:
    """min(r A, clip(r, 1 - low, 1 + high) A): no gain from a ratio beyond the clip.

    Args:
        low, high: high > low leaves room to what is seldom drawn (DAPO, arXiv 2503.14476).
        truncate: c > 1 + high takes min(r, c) A for r A, which bounds what a wrong token of a large
            ratio costs; 0: no bound.

    Worked example: low 0.2, high 0.28. r = 1.5 has 1.28 A for A > 0, and 1.5 A for A < 0; r = 0.5
    has 0.5 A for A > 0 and 0.8 A for A < 0.

    Source: PPO, arXiv 1707.06347, equation 7; `truncate` is TRL's `delta` (arXiv 2505.07291). With
    `sequence_log_ratio` for `log_ratio`: GSPO, arXiv 2507.18071, equation 5.
    """
    ratio = jnp.exp(log_ratio)
    within = jnp.clip(ratio, 1 - low, 1 + high)
    bounded = jnp.minimum(ratio, truncate) if truncate else ratio
    return jnp.minimum(bounded * advantages, within * advantages)


def is_clipped(log_ratio: Array, advantages: Array, *, low: float, high: float) -> Array:
    """Which tokens have no gradient in `clipped`, bool[...]: raised beyond 1 + high with A > 0, or
    lowered below 1 - low with A < 0."""
    ratio = jnp.exp(log_ratio)
    raised, lowered = (ratio > 1 + high) & (advantages > 0), (ratio < 1 - low) & (advantages < 0)
    return raised | lowered


def sequence_log_ratio(log_ratio: Array, sequence: Array, sequences: int) -> Array:
    """The mean of a completion's `log_ratio` over its tokens, at each of them.

    Args:
        log_ratio: float32[R, P], finite where it is padding.
        sequence: int32[R, P], which completion a token is of; `sequences` for padding.

    Worked example: log-ratios (0.3, -0.1) of one completion and (0.5) of another become
    (0.1, 0.1) and (0.5). Each of the T tokens has 1/T of the gradient T times, so that at ratio 1
    the gradient is that of `clipped` on tokens.

    Source: GSPO, arXiv 2507.18071, equation 7. TRL's importance_sampling_level "sequence".
    """
    ids, places = sequence.reshape(-1), sequences + 1
    sums = jax.ops.segment_sum(log_ratio.reshape(-1), ids, places)
    tokens = jax.ops.segment_sum(jnp.ones(ids.shape, log_ratio.dtype), ids, places)
    return (sums / jnp.maximum(tokens, 1))[sequence]


def k1(gap: Array) -> Array:
    """d = log pi(y_t) - log base(y_t), y_t drawn from pi: unbiased for KL(pi || base), and as a
    loss without a gradient in the mean.

    Source: J. Schulman, "Approximating KL divergence" (2020). d = 0.2 is 0.2.
    """
    return gap


def k2(gap: Array) -> Array:
    """d^2 / 2, never negative; as a loss it has the gradient of KL(pi || base).

    Source: as `k1`. d = 0.2 is 0.02.
    """
    return gap**2 / 2


def k3(gap: Array) -> Array:
    """exp(-d) - 1 + d, never negative and unbiased for KL(pi || base).

    Source: as `k1`; GRPO, arXiv 2402.03300, equation 4; TRL's. d = 0.2 is 0.0187.
    """
    return jnp.expm1(-gap) + gap
