"""What a phase minimises, from its settings: the loss that a compiled step takes, and the arrays
that this loss needs beside the batch.

Every mean is over the whole optimiser step: sums of a micro-batch are divided by counts of the
step, which come in `Extra`. So 1 x 8 and 8 x 1 are one loss. KTO's reference point is no such sum,
which is why its settings allow no accumulation.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from malt_jax.config.settings import DpoSettings, KtoSettings, PhaseSettings
from malt_jax.learn import losses, steps
from malt_jax.learn.logprobs import per_sequence
from malt_jax.learn.packing import Batch


def loss(phase: PhaseSettings) -> steps.Loss:
    """The loss of a phase; which one, the type of its settings says."""
    if isinstance(phase, DpoSettings):
        return partial(_dpo, phase)
    if isinstance(phase, KtoSettings):
        return partial(_kto, phase)
    return _sft


def extra(
    phase: PhaseSettings,
    order: np.ndarray,
    completions: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
) -> steps.Extra:
    """What `loss` needs for one optimiser step: counts over all of it, repeated for its K
    micro-batches, and figures of its sequences.

    Args:
        order: int32[K, R, M], the examples of a step as in `batches.Plan`, -1 for none.
        completions: int32[N, C], lengths of all examples' completions.
        reference: float32[N, C], their log-probabilities under the reference policy.
        labels: bool[N], which are desirable.
    """
    many = len(order)
    flat = order.reshape(many, -1)
    present = flat[flat >= 0]
    counts = {"rows": len(present), "nll_tokens": completions[present, 0].sum()}
    found: steps.Extra = {}
    if isinstance(phase, DpoSettings | KtoSettings):
        found["reference"] = reference[flat].reshape(many, -1)
    if isinstance(phase, KtoSettings):
        desirable = present[labels[present]]
        counts["nll_tokens"] = completions[desirable, 0].sum()
        counts |= {"desirable": len(desirable), "undesirable": len(present) - len(desirable)}
        found["labels"] = labels[flat]
    at_least_one = {name: np.full(many, max(1, n), np.float32) for name, n in counts.items()}
    return found | at_least_one


def _sft(logps: Array, batch: Batch, extra: steps.Extra) -> tuple[Array, steps.Metrics]:
    counted = jnp.asarray(batch.counted)
    value, _ = losses.sft_loss(logps, counted, denominator=extra["nll_tokens"])
    return value, {"nll": value}


def _dpo(
    phase: DpoSettings, logps: Array, batch: Batch, extra: steps.Extra
) -> tuple[Array, steps.Metrics]:
    sums, tokens = per_sequence(logps, batch)
    chosen, rejected = sums.reshape(-1, 2).T
    ref_chosen, ref_rejected = extra["reference"].reshape(-1, 2).T
    pairs = losses.Pairs(chosen, rejected, ref_chosen, ref_rejected, tokens[::2], tokens[1::2])
    value, metrics = losses.preference_loss(
        pairs,
        _pair_loss(phase, extra["nll_tokens"] / extra["rows"]),
        phase.beta,
        weights=pairs.chosen_tokens,
        denominator=extra["rows"],
    )
    pairs_here = metrics.pop("pairs")
    shares = {name: mean * pairs_here / extra["rows"] for name, mean in metrics.items()}
    return value, shares | {"nll": -shares["chosen_logp"] * extra["rows"] / extra["nll_tokens"]}


def _pair_loss(phase: DpoSettings, chosen_tokens: Array) -> losses.PairLoss:
    """`chosen_tokens` is the mean number of a pair's chosen tokens over the step."""
    sigmoid: losses.PairLoss = partial(losses.sigmoid, beta=phase.beta)
    kinds: dict[str, losses.PairLoss] = {
        "sigmoid": sigmoid,
        "ipo": partial(losses.ipo, beta=phase.beta),
        "hinge": partial(losses.hinge, beta=phase.beta),
        "robust": partial(losses.robust, beta=phase.beta, noise=phase.label_smoothing),
        "sigmoid_norm": partial(losses.length_normalised, loss=sigmoid),
    }
    if not phase.rpo_alpha:
        return kinds[phase.loss]
    return partial(losses.rpo, loss=kinds[phase.loss], alpha=phase.rpo_alpha, tokens=chosen_tokens)


def _kto(
    phase: KtoSettings, logps: Array, batch: Batch, extra: steps.Extra
) -> tuple[Array, steps.Metrics]:
    """An example's second branch is another question's completion: by it the distance to the
    reference is measured, and it has no gradient."""
    sums, tokens = per_sequence(logps, batch)
    own, mismatched = sums.reshape(-1, 2).T
    ref_own, ref_mismatched = extra["reference"].reshape(-1, 2).T
    counted = tokens[::2] > 0
    kl = losses.kl_reference(mismatched, ref_mismatched, counted)
    rows = losses.Unpaired(own, ref_own, extra["labels"])
    value, means = losses.kto_loss(
        rows,
        kl,
        phase.beta,
        desirable_weight=phase.desirable,
        undesirable_weight=phase.undesirable,
        weights=counted,
        denominator=extra["rows"],
    )
    good = means["desirable"] / extra["desirable"]
    bad = means["undesirable"] / extra["undesirable"]
    metrics = {
        "chosen_reward": means["chosen_reward"] * good,
        "rejected_reward": means["rejected_reward"] * bad,
        "chosen_logp": means["chosen_logp"] * good,
        "rejected_logp": means["rejected_logp"] * bad,
        "reference_point": kl * jnp.sum(counted) / extra["rows"],
        "accuracy": _right_side(rows, kl, counted) / extra["rows"],
    }
    metrics["margin"] = metrics["chosen_reward"] - metrics["rejected_reward"]
    metrics["nll"] = -metrics["chosen_logp"] * extra["desirable"] / extra["nll_tokens"]
    return value, metrics


def _right_side(rows: losses.Unpaired, kl: Array, counted: Array) -> Array:
    """How many desirable rows have a reward above that of the reference point and undesirable ones
    below it; a tie is neither."""
    beyond = rows.completion - rows.ref_completion - kl
    return jnp.sum(jnp.where(rows.label, beyond > 0, beyond < 0) & counted)
