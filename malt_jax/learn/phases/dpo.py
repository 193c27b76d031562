"""Direct preference optimisation on pairs of siblings, one positive and one not (MALT, arXiv
2412.01928, section 4.3; DPO, arXiv 2305.18290), from the policy before it, which is the reference.

    h = log(pi(y_w) / ref(y_w)) - log(pi(y_l) / ref(y_l)),    L = -1/N sum log sigmoid(beta h)

A pair whose chosen completion has log-probability -10 (-12 under the reference) and whose rejected
one has -9 (-8) has h = 2 - (-1) = 3; with beta 0.2 its loss is log(1 + e^-0.6) = 0.4375. N are the
pairs of the optimiser step; `config.dpo.loss` names other functions of h. Pairs of a weight, those
of replayed rounds, have it in both sums: with a second pair of h = 0 and w = 1/2 the loss is
(0.4375 + 0.5 log 2) / 1.5 = 0.5227.

Siblings of values (1, 2/3, 1/3, 0) with `credit.threshold` 0.5 make four pairs. With
`credit.max_pairs_per_parent` 2 these are kept: (1, 0), the widest, and (2/3, 0), the widest of
another chosen text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jax import Array

from malt_jax.config.credit import CreditSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.schema import Rule, another_default, at_least, positive, setting
from malt_jax.learn import losses
from malt_jax.learn.logprobs import per_sequence
from malt_jax.learn.packing import Batch
from malt_jax.learn.phases.phase import (
    IDS,
    Family,
    Forecast,
    Harvest,
    Phase,
    Row,
    StepData,
    capped,
    completions_of,
)
from malt_jax.learn.steps import Extra, Loss, Metrics

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("values", pa.list_(pa.float32())),  # chosen, rejected
        ("question_id", pa.string()),
        ("prompt_token_ids", IDS),
        ("chosen_token_ids", IDS),
        ("rejected_token_ids", IDS),
    ]
)


@dataclass(frozen=True)
class DpoSettings(PhaseSettings):
    """`config.dpo.*`."""

    learning_rate: float = another_default(PhaseSettings, "learning_rate", 5e-5)
    beta: float = setting(0.2, "weight of the reference in the implicit reward", positive())
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "sigmoid_norm"] = setting(
        "sigmoid", "the function of h; sigmoid_norm averages log-probabilities over tokens"
    )
    label_smoothing: float = setting(
        0.0,
        "of robust: the share of labels taken to be flipped",
        Rule(lambda share: 0 <= share < 0.5, "is the share of flipped labels, in [0, 0.5)"),
    )
    rpo_alpha: float = setting(
        0.0,
        "weight of an added SFT term on the chosen; 0: off",
        at_least(0, "must not be negative (0 is off)"),
    )

    def rules(self) -> list[tuple[str, bool, str]]:
        """(setting, holds, what to do)."""
        return [
            (
                "label_smoothing",
                self.label_smoothing == 0 or self.loss == "robust",
                "only config.dpo.loss='robust' takes it; give 0 or that loss",
            )
        ]


def rows(family: Family, credit: CreditSettings) -> Harvest:
    """Pairs of a positive and a negative, the widest gap in value first; ties keep the order of the
    samples. Under the cap a chosen text comes again only after every other had its turn."""
    pairs = [(good, bad) for good in family.positives for bad in family.negatives]
    pairs.sort(key=lambda pair: pair[1]["value"] - pair[0]["value"])
    kept = _spread(pairs, credit.max_pairs_per_parent)
    return Harvest([_row(good, bad) for good, bad in kept], capped("pairs", kept, pairs))


def _spread(pairs: Sequence[tuple[Row, Row]], cap: int) -> list[tuple[Row, Row]]:
    uses: Counter[int] = Counter()
    ranked = []
    for order, pair in enumerate(pairs):
        ranked.append((uses[id(pair[0])], order, pair))
        uses[id(pair[0])] += 1
    return [pair for _, _, pair in sorted(ranked, key=lambda item: item[:2])[:cap]]


def _row(good: Row, bad: Row) -> Row:
    return {
        "prompt": good["prompt"],
        "chosen": good["completion"],
        "rejected": bad["completion"],
        "values": [good["value"], bad["value"]],
        "question_id": good["question_id"],
        "prompt_token_ids": good["prompt_token_ids"],
        "chosen_token_ids": good["completion_token_ids"],
        "rejected_token_ids": bad["completion_token_ids"],
    }


def lacks(counts: Mapping[str, Any]) -> str:
    """Why no sample is preferred to a sibling."""
    nodes = counts["nodes"]
    other = "harder questions or a higher config.sample.temperature"
    if counts["positives"] == nodes:
        return f"all {nodes} samples are positive, so that none is preferred; take {other}"
    if nodes == counts["parents"]:
        return (
            "every sample is its parent's only one, so that none is preferred; raise "
            "config.roles.ROLE.branching"
        )
    if not counts["pairs"]:
        return f"no parent has different children, one positive and one not; take {other}"
    return ""


def extra(step: StepData) -> Extra:
    """`reference: float32[K, 2 * R * M]` of each sequence, `weight` of pairs that have one, and of
    the whole step `rows` (pairs), their `worth` (weights) and `nll_tokens` (chosen tokens, in
    `worth` pairs): float32[K]."""
    chosen = step.examples.completions[step.present, 0]
    return (
        {"reference": step.reference}
        | step.weights()
        | step.counts(
            rows=len(chosen), worth=step.weigh(np.ones(len(chosen))), nll_tokens=step.weigh(chosen)
        )
    )


@lru_cache
def loss(settings: DpoSettings) -> Loss:
    """The mean over pairs of `config.dpo.loss`."""
    return partial(_loss, settings)


def _loss(settings: DpoSettings, logps: Array, batch: Batch, extra: Extra) -> tuple[Array, Metrics]:
    sums, tokens = per_sequence(logps, batch)
    chosen, rejected = sums.reshape(-1, 2).T
    ref_chosen, ref_rejected = extra["reference"].reshape(-1, 2).T
    pairs = losses.Pairs(chosen, rejected, ref_chosen, ref_rejected, tokens[::2], tokens[1::2])
    loss = _pair_loss(settings, extra["nll_tokens"] / extra["worth"])
    if "weight" in extra:
        loss = partial(losses.weighted, loss=loss, weights=extra["weight"])
    value, metrics = losses.preference_loss(
        pairs,
        loss,
        settings.beta,
        weights=pairs.chosen_tokens,
        denominator=extra["worth"],
    )
    present = metrics.pop("pairs")
    shares = {name: mean * present / extra["rows"] for name, mean in metrics.items()}
    nll = -jnp.sum(pairs.chosen * extra.get("weight", 1.0)) / extra["nll_tokens"]
    return value, shares | {"nll": nll}


def _pair_loss(settings: DpoSettings, chosen_tokens: Array) -> losses.PairLoss:
    """`chosen_tokens` is the mean number of a pair's chosen tokens over the step."""
    beta, noise = settings.beta, settings.label_smoothing
    sigmoid: losses.PairLoss = partial(losses.sigmoid, beta=beta)
    losses_by_name: dict[str, losses.PairLoss] = {
        "sigmoid": sigmoid,
        "ipo": partial(losses.ipo, beta=beta),
        "hinge": partial(losses.hinge, beta=beta),
        "robust": partial(losses.robust, beta=beta, noise=noise),
        "sigmoid_norm": partial(losses.length_normalised, loss=sigmoid),
    }
    pair_loss = losses_by_name[settings.loss]
    if not settings.rpo_alpha:
        return pair_loss
    return partial(losses.rpo, loss=pair_loss, alpha=settings.rpo_alpha, tokens=chosen_tokens)


def expected(forecast: Forecast, credit: CreditSettings) -> float:
    """As many pairs as the cap allows of every parent with a contrast."""
    return forecast.contrast * credit.max_pairs_per_parent * forecast.parents


PHASE = Phase(
    name="dpo",
    settings=DpoSettings,
    schema=SCHEMA,
    counted="pairs",
    rows=rows,
    lacks=lacks,
    completions=completions_of("chosen", "rejected"),
    branches=2,
    siblings=2,
    extra=extra,
    loss=loss,
    expected=expected,
    needs_reference=True,
    # A policy that was trained on such samples: pairs pull the base away from what it writes.
    after=("sft", "kto"),
)
