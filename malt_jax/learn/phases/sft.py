"""Supervised fine-tuning on positive samples (MALT, arXiv 2412.01928, section 4.3).

    L = -1/N sum_b sum_t log pi(y_bt), N the completion tokens of the optimiser step

Every token weighs the same, so a long completion weighs more: of the tokens' log-probabilities
(-1, -1, -1) and (-5) the loss is 8/4 = 2, not the mean (1 + 5) / 2 = 3 of the completions' means.

Rows of a weight w, those of replayed rounds, have it in both sums:
L = -sum_b w_b sum_t log pi(y_bt) / sum_b w_b N_b. With w = 1/2 for the second of the
above the loss is (3 + 2.5) / (3 + 0.5) = 11/7.

Siblings of values (1, 2/3, 1/3, 0) with `credit.threshold` 0.5 give two rows, and one row with
`credit.max_positives_per_parent` 1: the first, with the second counted as over the cap.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import pyarrow as pa
from jax import Array

from malt_jax.config.credit import CreditSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.learn import losses
from malt_jax.learn.logprobs import at_tokens
from malt_jax.learn.packing import Batch
from malt_jax.learn.phases.phase import (
    IDS,
    Family,
    Forecast,
    Harvest,
    Phase,
    StepData,
    capped,
    columns,
    completions_of,
)
from malt_jax.learn.steps import Extra, Loss, Metrics

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("value", pa.float32()),
        ("question_id", pa.string()),
        ("prompt_token_ids", IDS),
        ("completion_token_ids", IDS),
    ]
)


def rows(family: Family, credit: CreditSettings) -> Harvest:
    """The first positives of a family."""
    kept = family.positives[: credit.max_positives_per_parent]
    dropped = capped("positives", kept, family.positives)
    return Harvest([columns(row, SCHEMA) for row in kept], dropped)


def lacks(counts: Mapping[str, Any]) -> str:
    """Why there is no positive to learn from."""
    nodes, positives = counts["nodes"], counts["positives"]
    if not positives:
        return f"none of {nodes} samples is positive; lower config.credit.threshold"
    if not counts["sft_rows"]:
        dropped = ", ".join(f"{n} {reason}" for reason, n in counts["dropped"].items())
        return f"none of {positives} positive samples can be used ({dropped}); take another base"
    return ""


def extra(step: StepData) -> Extra:
    """`nll_tokens: float32[K]`, completion tokens of the whole step; `weight` of rows that have
    one."""
    tokens = step.weigh(step.examples.completions[step.present, 0])
    return step.weights() | step.counts(nll_tokens=tokens)


def loss(settings: PhaseSettings) -> Loss:
    """The mean over completion tokens."""
    return _loss


def _loss(logps: Array, batch: Batch, extra: Extra) -> tuple[Array, Metrics]:
    counted = jnp.asarray(batch.counted)
    if "weight" in extra:
        logps = at_tokens(extra["weight"], batch) * jnp.where(counted, logps, 0.0)
    value, _ = losses.sft_loss(logps, counted, denominator=extra["nll_tokens"])
    return value, {"nll": value}


def expected(forecast: Forecast, credit: CreditSettings) -> float:
    """Positives, under their cap."""
    cap = credit.max_positives_per_parent * forecast.parents
    return min(forecast.positive * forecast.nodes, cap)


PHASE = Phase(
    name="sft",
    settings=PhaseSettings,
    schema=SCHEMA,
    counted="sft_rows",
    rows=rows,
    lacks=lacks,
    completions=completions_of("completion"),
    branches=1,
    extra=extra,
    loss=loss,
    expected=expected,
    # The start is the base, whose own samples are what is held out: hard to beat on them.
    evaluates_start=False,
    # It is the reference of what follows, and is compared with it.
    exported=True,
)
