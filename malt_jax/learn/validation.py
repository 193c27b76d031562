"""Held-out evaluation of a phase, and what follows from it: the best step and the end of
patience."""

import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from malt_jax.config.settings import KtoSettings, PhaseSettings
from malt_jax.learn import objectives, steps
from malt_jax.learn.examples import Data
from malt_jax.learn.metrics import Row
from malt_jax.learn.packing import plan
from malt_jax.models import Model
from malt_jax.models.lora import Adapter
from malt_jax.runtime import process

Evaluate = Callable[[Adapter], dict[str, float]]
Losses = Sequence[tuple[int, float]]
"""(step, held-out loss) of the evaluations so far, in order."""


def evaluator(
    phase: PhaseSettings, model: Model, mesh: Mesh, reference: Adapter, data: Data
) -> Evaluate:
    """A function from an adapter to its metrics on `data`: those of the phase's loss over all of
    it, and `kl`, KL(adapter || reference) in nats a completion token.

    One compiled call, in micro-batches of about `phase.batch` examples.
    """
    many = -(-len(data) // phase.batch)
    order = plan(
        data.examples,
        batch=phase.batch,
        accumulate=many,
        epochs=1,
        seed=[0],
        rows=steps.rows(mesh),
    )
    batch, extra = data.step(phase, order, 0, model.tokenizer.pad_id)
    # KTO's second branches are completions of other questions, which nobody would sample here.
    branches = data.examples.completions.shape[1] if isinstance(phase, KtoSettings) else 1
    batches, placed = steps.place(mesh, batch, extra)
    compiled = steps.evaluation(model.config, objectives.loss(phase), every=branches)

    def evaluate(adapter: Adapter) -> dict[str, float]:
        found = compiled(model.params, adapter, reference, batches, placed)
        with process.watched("held-out loss"):
            found = jax.device_get(found)
        return {name: float(value) for name, value in found.items()}

    return evaluate


def losses(rows: Sequence[Row]) -> list[tuple[int, float]]:
    """The evaluations among the rows of a `metrics.jsonl`; a loss that was not finite is inf."""
    return [
        (row["step"], math.inf if row["loss"] is None else row["loss"])
        for row in rows
        if row.get("eval")
    ]


def best(evaluations: Losses, until: float = math.inf) -> int | None:
    """The step with the lowest finite loss up to `until`, the first of equals; None if there is
    none."""
    found = [(value, step) for step, value in evaluations if step <= until and math.isfinite(value)]
    return min(found)[1] if found else None


def stale(evaluations: Losses) -> int:
    """How many evaluations there were since the best one; all of them if there is none."""
    top = best(evaluations)
    return sum(top is None or step > top for step, _ in evaluations)
