"""Kahneman-Tversky optimisation on single labelled samples (KTO, arXiv 2402.01306; not in MALT).

    r = log(pi(y) / ref(y)),    L = 1/N sum w_y (1 - sigmoid(s beta (r - z0)))

s is 1 for a desirable sample and -1 for another; z0 = max(0, mean of r over completions of other
questions), without a gradient. With beta 0.1 and z0 = 0.5 a desirable sample of r = 2 loses
1 - sigmoid(0.15) = 0.4626 and an undesirable one of r = -2 loses 1 - sigmoid(0.25) = 0.4378; both
weights 1, the loss is 0.4502.

Siblings of values (1, 2/3, 1/3, 0) with `credit.threshold` 0.5 give four rows, two of them
desirable.

Rows of a weight, those of replayed rounds, have it in both sums of L, and not in z0, which is of
the policy and not of what a row is worth.

z0 is the mean of a whole optimiser step and no sum of its micro-batches': there is no accumulation.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax import Array

from malt_jax.config.credit import CreditSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.schema import another_default, positive, setting
from malt_jax.learn import unpaired
from malt_jax.learn.logprobs import per_sequence
from malt_jax.learn.packing import Batch
from malt_jax.learn.phases.phase import (
    IDS,
    Family,
    Forecast,
    Harvest,
    Ids,
    Phase,
    Row,
    StepData,
    columns,
)
from malt_jax.learn.steps import Extra, Loss, Metrics
from malt_jax.workdir import shards

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("label", pa.bool_()),
        ("value", pa.float32()),
        ("question_id", pa.string()),
        ("prompt_token_ids", IDS),
        ("completion_token_ids", IDS),
    ]
)


@dataclass(frozen=True)
class KtoSettings(PhaseSettings):
    """`config.kto.*`."""

    learning_rate: float = another_default(PhaseSettings, "learning_rate", 5e-5)
    # Its reference point is a mean over the batch.
    batch: int = another_default(PhaseSettings, "batch", 16)
    beta: float = setting(0.1, "weight of the reference in the implicit reward", positive())
    desirable: float = setting(1.0, "weight of desirable samples, to balance numbers", positive())
    undesirable: float = setting(1.0, "weight of the others", positive())

    def rules(self) -> list[tuple[str, bool, str]]:
        """(setting, holds, what to do)."""
        return [
            (
                "accumulate",
                self.accumulate == 1,
                "must be 1: KTO's reference point is a mean over the whole optimiser step; raise "
                "config.kto.batch instead",
            )
        ]


def rows(family: Family, credit: CreditSettings) -> Harvest:
    """Every distinct sample of a family."""
    return Harvest([columns(row, SCHEMA) for row in family.distinct], {})


def lacks(counts: Mapping[str, Any]) -> str:
    """Nothing but what every phase lacks."""
    return ""


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[Sequence[Row]], None]]:
    """`shards.writing`, with a row of every question in turn, as long as there are any. KTO
    measures the distance to the reference on completions of other prompts; TRL takes the next
    row's, and a sibling's is no such completion."""
    with ExitStack() as stack:
        write = stack.enter_context(shards.writing(path, schema))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        with ExitStack() as files:
            turns: list[Callable[[Sequence[Row]], None]] = []  # a file each

            def add(rows: Sequence[Row]) -> None:
                for turn, part in enumerate(_by_turn(rows)):
                    if turn == len(turns):
                        file = shards.writing(folder / f"shard-{turn:05d}.parquet", schema)
                        turns.append(files.enter_context(file))
                    turns[turn](part)

            yield add
        for file in shards.paths(folder):
            for batch in pq.ParquetFile(file).iter_batches(1024):
                write(batch.to_pylist())


def _by_turn(rows: Sequence[Row]) -> list[list[Row]]:
    """Every question's first row, every question's second, ..."""
    seen: Counter[str] = Counter()
    turns: list[list[Row]] = []
    for row in rows:
        turn = seen[row["question_id"]]
        seen[row["question_id"]] += 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(row)
    return turns


def completions(rows: Sequence[Row], held_out: np.ndarray, context: int) -> list[list[Ids]]:
    """Every row's completion, and the one that its distance to the reference is measured on: the
    next of another question, on the same side (`held_out: bool[N]`), that fits the context; its
    own if there is none."""
    ids = [row["completion_token_ids"] for row in rows]
    others = _mismatched(rows, held_out, context)
    return [[ids[i], ids[other]] for i, other in enumerate(others)]


def _mismatched(rows: Sequence[Row], held_out: np.ndarray, context: int) -> list[int]:
    lengths = [len(row["completion_token_ids"]) for row in rows]
    questions = [row["question_id"] for row in rows]
    chosen = []
    for i, row in enumerate(rows):
        room = context - len(row["prompt_token_ids"])
        after = ((i + distance) % len(rows) for distance in range(1, len(rows)))
        fitting = (
            j
            for j in after
            if questions[j] != questions[i] and held_out[j] == held_out[i] and lengths[j] <= room
        )
        chosen.append(next(fitting, i))
    return chosen


def arrays(rows: Sequence[Row], settings: KtoSettings) -> dict[str, np.ndarray]:
    """`labels: bool[N]`, which are desirable."""
    return {"labels": np.array([row["label"] for row in rows], bool)}


def extra(step: StepData) -> Extra:
    """`reference: float32[K, 2 * R * M]` of each sequence, `labels: bool[K, R * M]`, `weight` of
    rows that have one, and of the whole step `rows`, their `worth` (weights), `desirable`,
    `undesirable` and `nll_tokens` (of desirable rows)."""
    labels, present = step.arrays["labels"], step.present
    desirable = present[labels[present]]
    return {
        "reference": step.reference,
        "labels": labels[step.places],
        **step.weights(),
    } | step.counts(
        rows=len(present),
        worth=step.weigh(np.ones(len(present))),
        nll_tokens=step.examples.completions[desirable, 0].sum(),
        desirable=len(desirable),
        undesirable=len(present) - len(desirable),
    )


@lru_cache
def loss(settings: KtoSettings) -> Loss:
    """The mean over samples."""
    return partial(_loss, settings)


def _loss(settings: KtoSettings, logps: Array, batch: Batch, extra: Extra) -> tuple[Array, Metrics]:
    """An example's second branch is another question's completion: by it the distance to the
    reference is measured, and it has no gradient."""
    sums, tokens = per_sequence(logps, batch)
    sampled, mismatched = sums.reshape(-1, 2).T
    ref_sampled, ref_mismatched = extra["reference"].reshape(-1, 2).T
    counted = tokens[::2] > 0
    kl = unpaired.kl_reference(mismatched, ref_mismatched, counted)
    samples = unpaired.Unpaired(sampled, ref_sampled, extra["labels"])
    value, means = unpaired.kto_loss(
        samples,
        kl,
        settings.beta,
        desirable_weight=settings.desirable,
        undesirable_weight=settings.undesirable,
        weights=counted * extra.get("weight", 1.0),
        denominator=extra["worth"],
    )
    good = means["desirable"] / extra["desirable"]
    bad = means["undesirable"] / extra["undesirable"]
    metrics = {
        "chosen_reward": means["chosen_reward"] * good,
        "rejected_reward": means["rejected_reward"] * bad,
        "chosen_logp": means["chosen_logp"] * good,
        "rejected_logp": means["rejected_logp"] * bad,
        "reference_point": kl * jnp.sum(counted) / extra["rows"],
        "accuracy": _right_side(samples, kl, counted) / extra["rows"],
    }
    metrics["margin"] = metrics["chosen_reward"] - metrics["rejected_reward"]
    metrics["nll"] = -metrics["chosen_logp"] * extra["desirable"] / extra["nll_tokens"]
    return value, metrics


def _right_side(samples: unpaired.Unpaired, kl: Array, counted: Array) -> Array:
    """How many desirable rows have a reward above that of the reference point and undesirable ones
    below it; a tie is neither."""
    beyond = samples.completion - samples.ref_completion - kl
    return jnp.sum(jnp.where(samples.label, beyond > 0, beyond < 0) & counted)


def expected(forecast: Forecast, credit: CreditSettings) -> float:
    """All samples."""
    return forecast.nodes


PHASE = Phase(
    name="kto",
    settings=KtoSettings,
    schema=SCHEMA,
    counted="kto_rows",
    rows=rows,
    lacks=lacks,
    completions=completions,
    branches=2,
    extra=extra,
    loss=loss,
    expected=expected,
    arrays=arrays,
    needs_reference=True,
    # The second completion is one that nobody would sample for that prompt.
    kl_of_first=True,
    accumulates=False,
    writing=writing,
)
