"""Held-out evaluation of a phase, and what follows from it: the best step and the end of
patience."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from malt_jax.config.phase import PhaseSettings
from malt_jax.learn import steps
from malt_jax.learn.examples import Data
from malt_jax.learn.logprobs import Drawn
from malt_jax.learn.metrics import Row
from malt_jax.learn.packing import plan
from malt_jax.learn.phases.phase import Phase
from malt_jax.models import Model
from malt_jax.models.lora import Adapter

Evaluate = Callable[[Adapter], dict[str, float]]
Evaluations = Sequence[tuple[int, float]]
"""(step, the held-out metric that the phase is judged by) so far, in order."""


def evaluator(
    phase: Phase[Any],
    settings: PhaseSettings,
    model: Model,
    mesh: Mesh,
    reference: Adapter,
    data: Data,
    drawn: Drawn | None = None,
) -> Evaluate:
    """A function from an adapter to its metrics on `data`: those of the phase's loss over all of
    it, and `kl`, KL(adapter || reference) in nats a completion token.

    In micro-batches of about `settings.batch` examples, a compiled call each.
    """
    many = -(-len(data) // settings.batch)
    order = plan(
        data.examples,
        batch=settings.batch,
        accumulate=many,
        epochs=1,
        seed=[0],
        rows=steps.rows(mesh),
    )
    batches, placed = steps.place(mesh, *data.step(phase, order, 0, model.tokenizer.pad_id))
    every = phase.branches if phase.kl_of_first else 1
    score = steps.evaluation(model.config, phase.loss(settings), every=every, drawn=drawn)

    def evaluate(adapter: Adapter) -> dict[str, float]:
        metrics = score(model.params, adapter, reference, batches, placed)
        return {name: float(value) for name, value in metrics.items()}

    return evaluate


def read(rows: Sequence[Row], judged: str, start: bool) -> list[tuple[int, float]]:
    """The evaluations among the rows of a `metrics.jsonl` of which the best is chosen, by the
    metric `judged`; one that was not finite is inf. That of the start counts if `start` says so."""
    return [
        (row["step"], math.inf if row[judged] is None else row[judged])
        for row in rows
        if row.get("eval") and (start or row["step"])
    ]


def best(evaluations: Evaluations, until: float = math.inf) -> int | None:
    """The step with the lowest finite value up to `until`, the first of equals; None if there is
    none."""
    finite = [(x, step) for step, x in evaluations if step <= until and math.isfinite(x)]
    return min(finite)[1] if finite else None


def stale(evaluations: Evaluations) -> int:
    """How many evaluations there were since the best one; all of them if there is none."""
    top = best(evaluations)
    return sum(top is None or step > top for step, _ in evaluations)
