"""The loop of one phase of one role: optimiser steps, held-out evaluations, checkpoints, and what
becomes of steps that are not finite."""

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh
from tqdm import tqdm

from malt_jax.config.phase import PhaseSettings
from malt_jax.config.settings import Settings
from malt_jax.learn import metrics, steps, validation
from malt_jax.learn.examples import Data
from malt_jax.learn.figures import Values, step_figures
from malt_jax.learn.logprobs import Drawn
from malt_jax.learn.packing import Plan, plan
from malt_jax.learn.phases.phase import Phase
from malt_jax.models import Model
from malt_jax.models.lora import Adapter
from malt_jax.runtime import hosts, process
from malt_jax.workdir import checkpoints, storage

_KEPT = 2  # checkpoints
# A checkpoint at least so often, whatever `checkpoint_every` says: a step may take longer than a
# signal leaves for it (`process.GRACE_SECONDS`), and would take all those before it along.
_OVERDUE_SECONDS = 180.0


@dataclass(frozen=True)
class _Training:
    """A phase of a role, and what the figures on disk say of its steps so far: a resumed run begins
    with that."""

    directory: Path
    title: str
    phase: Phase[Any]
    settings: PhaseSettings
    data: Data
    order: Plan
    saved: checkpoints.Store
    write: metrics.Write
    evaluate: validation.Evaluate | None  # None: no question is held out
    evaluations: list[tuple[int, float]]  # (step, held-out `phase.judged`)
    nonfinite: list[int]  # steps

    @property
    def out_of_patience(self) -> bool:
        patience = self.settings.patience
        return bool(patience) and validation.stale(self.evaluations) >= patience


def fit(
    directory: Path,
    phase: Phase[Any],
    settings: Settings,
    model: Model,
    mesh: Mesh,
    adapter: Adapter,
    data: tuple[Data, Data],
    title: str,
) -> Adapter:
    """One phase, from `adapter`, which is also the reference of the KL, or from the newest
    undamaged checkpoint in `directory`.

    `data` is what to train on and what is held out. Returns the adapter with the lowest held-out
    `phase.judged`, or the last one where nothing is held out; it is `adapter` itself where the
    phase evaluates its start and nothing is better. The order of the examples is a function of the
    seed and all else is read from disk, so a resumed run ends as one that never stopped.

    Raises FloatingPointError once `max_nonfinite` steps were not finite, and ValueError if there
    are checkpoints and all are damaged.
    """
    chosen, (training, held) = settings.phases[phase.name], data
    order = plan(
        training.examples,
        batch=chosen.batch,
        accumulate=chosen.accumulate,
        epochs=chosen.epochs,
        seed=[settings.seed, zlib.crc32(title.encode())],
        rows=steps.rows(mesh),
    )
    drawn = phase.drawn(chosen, settings.sample_of_trees)
    begun, step = _compiled(phase, chosen, drawn, model, mesh, adapter, len(order))
    evaluate = None
    if len(held):
        evaluate = validation.evaluator(phase, chosen, model, mesh, adapter, held, drawn)
    elif chosen.held_out:
        logging.info("%s: too few questions to hold any out; no evaluation", title)

    def inputs(i: int) -> Any:
        return steps.place(mesh, *training.step(phase, order, i, model.tokenizer.pad_id))

    with checkpoints.opened(directory) as saved, process.deferred():
        done, state = checkpoints.restore(saved, begun)
        rows = metrics.read(directory / "metrics.jsonl", done) if done else []
        with metrics.writing(
            directory,
            rows,
            project=settings.wandb,
            title=f"{Path(settings.workdir).name} {title}",
            config=settings.as_config(),
        ) as write:
            run = _Training(
                directory,
                title,
                phase,
                chosen,
                training,
                order,
                saved,
                write,
                evaluate,
                validation.read(rows, phase.judged, phase.evaluates_start),
                [row["step"] for row in rows if not row.get("finite", 1)],
            )
            if not done:
                _evaluate(run, 0, state["adapter"])
            updates = _steps(run, partial(step, model.params), inputs, done, state)
            row = step_figures(chosen, order, training.examples, model, mesh)
            last = _kept(run, row, updates)
    if hosts.first() and (fault := _warning(run)):
        logging.warning("%s: %s", title, fault)
    return _best(run, last["adapter"] if last else state["adapter"])


def _compiled(
    phase: Phase[Any],
    chosen: PhaseSettings,
    drawn: Drawn | None,
    model: Model,
    mesh: Mesh,
    adapter: Adapter,
    total: int,
) -> tuple[steps.State, Callable[..., tuple[steps.State, steps.Metrics]]]:
    """The state before the first of `total` optimiser steps, and the compiled step."""
    tx = steps.optimiser(chosen, total)
    # A copy: the step takes over what it is given, and the evaluations still need `adapter`.
    begun = steps.init(tx, jax.tree.map(jnp.copy, adapter), mesh)
    step = steps.training(
        model.config, tx, phase.loss(chosen), begun, remat=chosen.remat, drawn=drawn
    )
    return begun, hosts.in_step(step)


def _kept(
    run: _Training,
    row: Callable[[int, Values, float, int], Values],
    updates: Iterator[tuple[int, steps.State, Values, float]],
) -> steps.State | None:
    """Writes down what the steps of a phase did, evaluates and saves where that is due. Returns the
    last state; None if there was no step to run."""
    chosen, saved_at, state = run.settings, time.monotonic(), None
    for now, state, values, seconds in updates:
        last, overdue = now == len(run.order), time.monotonic() - saved_at > _OVERDUE_SECONDS
        due = now % chosen.checkpoint_every == 0 or hosts.any_says(overdue)
        # A checkpoint of this step relies on its row when a run is resumed.
        run.write(row(now, values, seconds, len(run.nonfinite)), due or last)
        if not values["finite"]:
            _not_finite(run, now, values)
        if now % chosen.eval_every == 0 or last:
            _evaluate(run, now, state["adapter"])
        stops = hosts.any_says(process.asked())
        if due or last or run.out_of_patience or stops:
            checkpoints.save(run.saved, now, state, partial(_newest, run.saved, now))
            saved_at = time.monotonic()
        if stops:
            raise process.Stopped(run.title)
    return state


def _steps(
    run: _Training,
    step: Callable[..., tuple[steps.State, steps.Metrics]],
    inputs: Callable[[int], Any],
    done: int,
    state: steps.State,
) -> Iterator[tuple[int, steps.State, Values, float]]:
    """The optimiser steps after the first `done`: (its number, state, metrics, seconds) of each.
    Ends early where patience does."""
    total = len(run.order)
    upcoming: Any = inputs(done) if done < total else None
    with tqdm(total=total, initial=done, desc=run.title, unit="step") as bar:
        for i in range(done, total):
            if run.out_of_patience:
                break
            started = time.perf_counter()
            state, scores = step(state, *upcoming)
            # Packed while the devices compute.
            upcoming = inputs(i + 1) if i + 1 < total else None
            with process.watched(run.title, run.settings.accumulate):
                scores = jax.device_get(scores)
            values = {name: float(value) for name, value in scores.items()}
            yield i + 1, state, values, time.perf_counter() - started
            bar.set_postfix(loss=f"{values['loss']:.3f}")
            bar.update()


def _not_finite(run: _Training, step: int, values: Values) -> None:
    """Writes out the examples of a step that was left out. Raises FloatingPointError at the last
    one that the settings allow."""
    run.nonfinite.append(step)
    if hosts.first():
        _write_batch(run, step)
    fault = (
        f"{run.title}: loss {values['loss']:g}, gradient norm {values['grad_norm']:g} "
        f"at step {step}"
    )
    logging.warning("%s; the step is left out", fault)
    if len(run.nonfinite) >= run.settings.max_nonfinite:
        files = ", ".join(str(_batch_file(run, lost)) for lost in run.nonfinite)
        raise FloatingPointError(
            f"{fault}; steps that were not finite: {len(run.nonfinite)}, which is "
            f"config.{run.phase.name}.max_nonfinite; lower "
            f"config.{run.phase.name}.learning_rate, or look at the batches in {files}"
        )


def _write_batch(run: _Training, step: int) -> None:
    part = run.data.part(present := run.order.present(step - 1))
    with storage.written_whole(_batch_file(run, step)) as file:
        np.savez(
            file,
            source=str(run.data.source),
            questions=part.questions,
            order=present,
            token_ids=part.examples.tokens,
            starts=part.examples.starts,
            prompt_tokens=part.examples.prompts,
            completion_tokens=part.examples.completions,
        )


def _batch_file(run: _Training, step: int) -> Path:
    return run.directory / f"nonfinite-{step}.npz"


def _evaluate(run: _Training, step: int, adapter: Adapter) -> None:
    """The held-out metrics of a step, if any question is held out; the adapter is kept if it is the
    best so far. Those of the start are for the record where the phase does not choose it."""
    if run.evaluate is None:
        return
    scores, before = run.evaluate(adapter), validation.best(run.evaluations)
    if step or run.phase.evaluates_start:
        run.evaluations.append((step, scores[run.phase.judged]))
    better = validation.best(run.evaluations) != before
    ended = run.out_of_patience
    row = {"step": step, "eval": True, **scores, "best": better, "stopped_early": ended}
    run.write(row, True)
    if better:
        bests = run.saved.folder("best")
        checkpoints.save(bests, step, adapter, partial(_bests, run, step))
    if ended:
        logging.info(
            "%s: ends at step %d of %d, after %d evaluations without a better one",
            run.title,
            step,
            len(run.order),
            run.settings.patience,
        )


def _newest(saved: checkpoints.Store, step: int) -> list[int]:
    """The checkpoints to keep once that of `step` is written."""
    return [other for other in checkpoints.steps(saved) if other <= step][-_KEPT:]


def _bests(run: _Training, step: int) -> set[int | None]:
    """The best adapters to keep once that of `step` is written: those that a run resumed from any
    of the checkpoints would look for."""
    return {
        step,
        *(validation.best(run.evaluations, at) for at in checkpoints.steps(run.saved)),
    }


def _warning(run: _Training) -> str:
    """What the phase says of its first and its last figures; of evaluations where there are any."""
    rows = metrics.read(run.directory / "metrics.jsonl", len(run.order))
    rows = [row for row in rows if row.get("eval", False) == (run.evaluate is not None)]
    return run.phase.warns(rows[0], rows[-1]) if rows else ""


def _best(run: _Training, last: Adapter) -> Adapter:
    """What the phase returns: the adapter with the lowest held-out `phase.judged`, or else the last
    one."""
    step = validation.best(run.evaluations)
    if step is None:
        return last
    name, judged = run.phase.name, run.phase.judged
    if step:
        logging.info("%s: step %d had the lowest held-out %s; it is kept", run.title, step, judged)
    else:
        logging.warning(
            "%s: no evaluation had a lower held-out %s than the start, so the role stays what it "
            "was; lower config.%s.learning_rate, or config.%s.eval_every to look more often",
            run.title,
            judged,
            name,
            name,
        )
    return checkpoints.load(storage.absolute(run.directory) / "best" / str(step), last)
