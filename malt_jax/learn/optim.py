"""The optimiser of every stage: AdamW with warm-up, cosine decay and clipping."""

from functools import lru_cache

import optax


def schedule(peak_lr: float, steps: int, warmup: float) -> optax.Schedule:
    """Learning rate of update i = 0, 1, ..., steps - 1.

    Over the first W = round(warmup * steps) updates it rises as peak_lr * (i + 1) / (W + 1), so
    that no update is spent at rate 0; update W has the peak, and from there
    peak_lr * (1 + cos(pi * (i - W) / (steps - W))) / 2, which reaches 0 at i = steps.
    W is at most steps - 1: a run of one update takes it at the peak.

    Args:
        peak_lr: the highest rate.
        steps: number of optimiser updates, at least 1.
        warmup: fraction of the updates spent rising, in [0, 1).

    Raises:
        ValueError: if an argument is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a fraction of the steps in [0, 1), got {warmup}")
    rising = min(round(warmup * steps), steps - 1)
    falling = optax.cosine_decay_schedule(peak_lr, steps - rising)
    if rising == 0:
        return falling
    start = optax.linear_schedule(peak_lr / (rising + 1), peak_lr, rising)
    return optax.join_schedules([start, falling], [rising])


@lru_cache  # equal optimisers are one, and what is compiled with one serves the other
def adamw(
    peak_lr: float,
    steps: int,
    *,
    warmup: float,
    weight_decay: float,
    b1: float,
    b2: float,
    clip_norm: float,
) -> optax.GradientTransformation:
    """AdamW on gradients clipped to a global norm, at the rates of `schedule`.

    Args:
        peak_lr, steps, warmup: see `schedule`.
        weight_decay: decoupled, times the learning rate, on every parameter.
        b1, b2: decay of the first and second moments; epsilon is 1e-8.
        clip_norm: largest global L2 norm that reaches Adam, above 0.

    Raises:
        ValueError: if an argument is out of range.

    Source: Loshchilov and Hutter, arXiv 1711.05101, algorithm 2; eps outside the square root.
    """
    if clip_norm <= 0:
        raise ValueError(f"clip_norm must be above 0, got {clip_norm}")
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule(peak_lr, steps, warmup), b1, b2, weight_decay=weight_decay),
    )
