"""Seconds a token of every phase's optimiser step, side by side.

    python tests/benchmarks/phases.py runs/quickstart --role=refiner

The phases train from the data sets of one work directory, at one batch, and take turns, so that a
busy machine is busy for all of them. A phase's first step is not counted; log-probabilities that
are computed once, of the reference and of the base, are computed before. Tokens are those of
prompts and completions, without padding.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from malt_jax import models, recipe
from malt_jax.config.settings import Settings
from malt_jax.learn import examples, steps
from malt_jax.learn.packing import plan
from malt_jax.learn.phases import PHASES
from malt_jax.models import Model, lora
from malt_jax.runtime import mesh as meshes
from malt_jax.workdir.storage import read_json


def stepping(workdir: Path, role: str, name: str, model: Model, settings: Settings) -> Callable:
    """A function that takes one optimiser step of a phase and gives its tokens and seconds."""
    phase, chosen, mesh = PHASES[name], settings.phases[name], meshes.make()
    shape = settings.lora
    adapter = lora.init(
        model.config,
        jax.random.key(0),
        rank=shape.rank,
        alpha=shape.alpha,
        targets=shape.targets,
    )
    path = workdir / "datasets" / role / f"{name}.parquet"
    with TemporaryDirectory() as folder:
        data, _ = examples.load(path, Path(folder), phase, settings, model, mesh, adapter)
    order = plan(
        data.examples, batch=chosen.batch, accumulate=1, epochs=1, seed=[0], rows=steps.rows(mesh)
    )
    tx = steps.optimiser(chosen, len(order))
    state, drawn = steps.init(tx, adapter, mesh), phase.drawn(chosen, settings.sample)
    step = steps.training(
        model.config, tx, phase.loss(chosen), state, remat=chosen.remat, drawn=drawn
    )
    taken = 0

    def once() -> tuple[float, float]:
        nonlocal state, taken
        i = taken % (len(order) - 1)  # the last one may be smaller
        inputs = steps.place(mesh, *data.step(phase, order, i, model.tokenizer.pad_id))
        started = time.perf_counter()
        state, metrics = step(model.params, state, *inputs)
        tokens = float(metrics["computed"])
        taken += 1
        return tokens, time.perf_counter() - started

    once()
    return once


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--role", default="refiner")
    parser.add_argument("--phases", default="sft,dpo,rl")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=15)
    asked = parser.parse_args()
    config = recipe.completed(read_json(asked.workdir / "config.json")["config"])
    settings, names = recipe.parse(config), asked.phases.split(",")
    same = {"batch": asked.batch, "held_out": 0.0, "remat": "keep_products"}
    phases = {name: replace(chosen, **same) for name, chosen in settings.phases.items()}
    settings, model = replace(settings, phases=phases), models.load(Path(settings.model.path))
    turns = {name: stepping(asked.workdir, asked.role, name, model, settings) for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(asked.steps):
        for name, once in turns.items():
            tokens, seconds = once()
            costs[name].append(seconds / tokens)
    medians = {name: statistics.median(of_phase) for name, of_phase in costs.items()}
    for name, cost in medians.items():
        print(f"{name}: {1e6 * cost:.1f} us a token, {cost / medians[names[0]]:.2f} of {names[0]}")


if __name__ == "__main__":
    main()
