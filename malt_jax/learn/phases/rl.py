"""Policy gradients on the tree's own samples, each weighed by what it is worth beside its siblings.

    A = V(x) - V(parent),    r_t = pi(y_t) / b(y_t),    w_t = min(r_t, c) without a gradient,
    L = -1/N sum_t w_t A log pi(y_t)

b is the distribution that was sampled: temperature, top-k and top-p applied; pi is the policy now,
by the same rule. At the first step of a policy on its own samples r_t is 1 to rounding. N are the
completion tokens of the optimiser step, so that no turn and no length weighs more than its tokens.
A token of log pi = -1, r = 6 and A = 0.5 adds 5 x 0.5 = 2.5 to N L with c = 5.
`config.rl.ratio` names clipped objectives: they stop where a ratio leaves the clip, so that on one
set of trees no token becomes more than 1 + high times as likely as it was.

Siblings of values (1, 1/3, 0) make three rows with advantages (5/9, -1/9, -4/9); siblings of one
value make none, for they teach nothing. A completion that was cut at its length is no row unless
`credit.truncated` says so, but counts in its siblings' mean.

Other advantages: `malt_jax/credit/advantages.py`. Other objectives, and the distance to the base:
`malt_jax/learn/policy_losses.py`.

After another phase the ratios begin elsewhere than at 1, for the samples are the base's: what lies
beyond the clip has no gradient then.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jax import Array

from malt_jax.config.credit import CreditSettings
from malt_jax.config.rl import RlSettings
from malt_jax.config.settings import SampleSettings
from malt_jax.credit import advantages
from malt_jax.learn import policy_losses
from malt_jax.learn.logprobs import Drawn, at_tokens, per_sequence
from malt_jax.learn.packing import Batch
from malt_jax.learn.phases.phase import (
    IDS,
    Family,
    Forecast,
    Harvest,
    Phase,
    Row,
    StepData,
    columns,
    completions_of,
    ragged,
)
from malt_jax.learn.steps import Extra, Loss, Metrics
from malt_jax.sampler.draw import Sampling

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("advantage", pa.float32()),  # value less the siblings' mean
        ("sibling_values", pa.list_(pa.float32())),  # its own first
        ("behaviour_logprobs", pa.list_(pa.float32())),
        ("question_id", pa.string()),
        ("prompt_token_ids", IDS),
        ("completion_token_ids", IDS),
    ]
)
_OLD, _CUT = "rl: no behaviour log-probabilities", "rl: truncated"  # why it left a sample out
_HEAVIEST = 10.0  # weight of a token in what the best step is told by
_COLLAPSED = 0.5  # of a figure at the start


def rows(family: Family, credit: CreditSettings) -> Harvest:
    """Every sibling with an advantage, repeated texts too: they are part of the mean. With
    `credit.group` question all samples of the role on the question are taken for siblings."""
    peers = family.siblings if credit.group == "siblings" else family.of_question
    kept = []
    dropped = {_OLD: 0, _CUT: 0}
    values, here = [peer["value"] for peer in peers], {id(row) for row in family.siblings}
    gaps = advantages.siblings(np.array(values, np.float32))
    for place, (row, gap) in enumerate(zip(peers, gaps, strict=True)):
        if id(row) not in here or not gap:
            continue  # nothing is lacking: it teaches nothing
        if not row.get("behaviour_logprobs"):
            dropped[_OLD] += 1
        elif row.get("finish_reason") == "length" and not credit.truncated:
            dropped[_CUT] += 1
        else:
            others = values[:place] + values[place + 1 :]
            worth = {"advantage": float(gap), "sibling_values": [row["value"], *others]}
            kept.append(columns(row | worth, SCHEMA))
    return Harvest(kept, dropped)


def lacks(counts: Mapping[str, Any]) -> str:
    """Why no sample has an advantage that can be learned from."""
    # Yields of earlier versions do not count them.
    if counts.get(PHASE.counted, 1):
        return ""
    dropped = counts["dropped"]
    if old := dropped.get(_OLD):
        return (
            f"{old} samples with an advantage are of a version that did not store the "
            "log-probabilities they were drawn with; collect trees anew for rl"
        )
    if cut := dropped.get(_CUT):
        return (
            f"all {cut} samples with an advantage were cut at their length; raise "
            "config.roles.ROLE.max_new_tokens, or learn from them with config.credit.truncated=True"
        )
    return (
        "no parent has children of different values, so that none has an advantage; take other "
        "questions, or a higher config.sample.temperature or config.roles.ROLE.branching"
    )


def arrays(rows: Sequence[Row], settings: RlSettings) -> dict[str, np.ndarray]:
    """`advantage: float32[N]` and `behaviour`, ragged, of every completion token.

    Raises ValueError for a row with other than a log-probability a token.
    """
    for row in rows:
        drawn, tokens = len(row["behaviour_logprobs"]), len(row["completion_token_ids"])
        if drawn != tokens:
            raise ValueError(
                f"question {row['question_id']!r}: {drawn} behaviour_logprobs for {tokens} "
                "completion tokens; run --stage=datasets again"
            )
    worth = np.array([_advantage(row["sibling_values"], settings) for row in rows], np.float32)
    over_role: dict[str, advantages.Advantages] = {
        "none": lambda worth: worth,
        "scale": advantages.scaled,
        "standardise": advantages.standardised,
    }
    return {
        "advantage": over_role[settings.role_statistics](worth),
        "behaviour": ragged([row["behaviour_logprobs"] for row in rows]),
    }


def _advantage(sibling_values: Sequence[float], settings: RlSettings) -> float:
    """Of the first of the siblings."""
    values = np.array(sibling_values, np.float32)
    rules: dict[str, advantages.Advantages] = {
        "siblings": advantages.siblings,
        "leave_one_out": advantages.leave_one_out,
        "mixed": partial(advantages.mixed, mix=settings.mix, shaping=settings.shaping),
    }
    worth = rules[settings.advantage](values)
    return float((advantages.normalised(worth, values) if settings.normalise else worth)[0])


def extra(step: StepData) -> Extra:
    """`advantage: float32[K, R * M]` of each sequence, and `weight` of those that have one;
    `behaviour` and, where the loss needs it, `base` of each token: float32[K, R, P]; `tokens:
    float32[K]`, completion tokens of the step, each of its weight, and `rows: float32[K]`, likewise
    of completions."""
    names = {"behaviour", "base"} & step.arrays.keys()
    return {
        "advantage": step.arrays["advantage"][step.places],
        **{name: step.of_tokens(name) for name in sorted(names)},
        **step.weights(),
        **step.counts(
            tokens=step.weigh(step.examples.completions[step.present, 0]),
            rows=step.weigh(np.ones(len(step.present))),
        ),
    }


@lru_cache
def loss(settings: RlSettings) -> Loss:
    """The mean over tokens of the objective, the KL to the base and the entropy."""
    return partial(_loss, settings)


def _loss(settings: RlSettings, logps: Array, batch: Batch, extra: Extra) -> tuple[Array, Metrics]:
    counted, sequence = jnp.asarray(batch.counted), jnp.asarray(batch.sequence)
    weights = at_tokens(extra["weight"], batch) if "weight" in extra else 1.0

    def mean(figures: Array) -> Array:
        return jnp.sum(jnp.where(counted, weights * figures, 0.0)) / extra["tokens"]

    logps = jnp.where(counted, logps, 0.0)
    log_ratio = jnp.where(counted, logps - extra["behaviour"], 0.0)
    worth = at_tokens(extra["advantage"], batch)
    clip = {"low": settings.clip_low, "high": settings.clip_high}
    of_clip = log_ratio
    if settings.ratio == "sequence":
        of_clip = policy_losses.sequence_log_ratio(log_ratio, sequence, batch.sequences)
    if settings.ratio == "none":
        objective = policy_losses.reinforce(logps, log_ratio, worth, truncate=settings.truncate)
    else:
        objective = policy_losses.clipped(of_clip, worth, **clip, truncate=settings.truncate)
    value = -mean(objective)
    metrics = {
        "surrogate": -mean(jnp.minimum(jnp.exp(log_ratio), _HEAVIEST) * worth),
        "ratio_deviation": mean(jnp.abs(jnp.expm1(log_ratio))),
        "clipped": mean(policy_losses.is_clipped(of_clip, worth, **clip)),
        "approx_kl": mean(policy_losses.k3(-log_ratio)),
        "entropy": mean(extra["entropy"]),
        "advantage": mean(worth),
        **_lengths(log_ratio, batch, extra),
    }
    if settings.kl_weight:
        gap = jnp.where(counted, logps - extra["base"], 0.0)
        estimator = {"k1": policy_losses.k1, "k2": policy_losses.k2, "k3": policy_losses.k3}
        metrics["kl_base"] = mean(estimator[settings.kl](gap))
        value += settings.kl_weight * metrics["kl_base"]
    if settings.entropy_weight:
        value -= settings.entropy_weight * metrics["entropy"]
    return value, metrics


def _lengths(log_ratio: Array, batch: Batch, extra: Extra) -> Metrics:
    """Means over completions of w and of w times its tokens, w = min(pi(y) / b(y), 10): one divided
    by the other, how long completions of the policy are, as far as samples can tell."""
    sums, tokens = per_sequence(log_ratio, batch)
    likely = jnp.minimum(jnp.exp(sums), _HEAVIEST) * extra.get("weight", 1.0)
    likely = jnp.where(tokens > 0, likely, 0.0) / extra["rows"]
    return {"likely": jnp.sum(likely), "likely_tokens": jnp.sum(likely * tokens)}


def drawn(settings: RlSettings, sample: SampleSettings) -> Drawn:
    """The distribution that the trees were drawn from."""
    sampling = Sampling(sample.temperature, sample.top_k, sample.top_p)
    return Drawn(sampling, entropy_gradient=settings.entropy_weight > 0)


def expected(forecast: Forecast, credit: CreditSettings) -> float:
    """All children of parents with a contrast."""
    return forecast.contrast * forecast.nodes


def warns(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Whether the samples of the trained policy will be alike, half of the entropy being gone, or
    half as long as they were."""
    less = "lower config.rl.learning_rate or config.rl.epochs, or give"
    faults = []
    if _has_collapsed(before := first["entropy"], after := last["entropy"]):
        faults.append(
            f"the entropy fell from {before:.3g} to {after:.3g} nats a token, so that samples will "
            f"differ little; {less} config.rl.entropy_weight or config.rl.kl_weight"
        )
    if _has_collapsed(before := _length(first), after := _length(last)):
        faults.append(
            f"completions that the policy now makes likely have {after:.3g} tokens, after "
            f"{before:.3g}: it may have learned to say less; {less} config.rl.kl_weight"
        )
    return "; ".join(faults)


def _has_collapsed(before: float | None, after: float | None) -> bool:
    """Never by a figure that is not known, or was not finite."""
    return before is not None and after is not None and after <= _COLLAPSED * before


def _length(metrics: Mapping[str, Any]) -> float | None:
    """Tokens a completion, of `_lengths`; None where no sample is likely any more, and of earlier
    versions."""
    total, tokens = metrics.get("likely"), metrics.get("likely_tokens")
    return tokens / total if total and tokens is not None else None


PHASE = Phase(
    name="rl",
    settings=RlSettings,
    schema=SCHEMA,
    counted="rl_rows",
    rows=rows,
    lacks=lacks,
    completions=completions_of("completion"),
    branches=1,
    siblings=2,
    extra=extra,
    loss=loss,
    expected=expected,
    arrays=arrays,
    reads=("behaviour_logprobs", "finish_reason"),
    needs_base=lambda settings: settings.kl_weight > 0,
    drawn=drawn,
    warns=warns,
    # The importance-weighted advantage of held-out samples, whatever is clipped or minimised.
    judged="surrogate",
)
