"""malt_jax: role training, one epoch a request.

python -m benchmarks.peers.ours_training DIRECTORY JOB.json
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from benchmarks.peers import training_job
from benchmarks.peers.serving import serve
from benchmarks.peers.training_job import Job
from configs.base import get_config
from malt_jax import models
from malt_jax.learn import examples, optim, steps
from malt_jax.learn.packing import plan
from malt_jax.learn.phases import PHASES
from malt_jax.models import Model, lora
from malt_jax.recipe import parse
from malt_jax.runtime import mesh as meshes
from malt_jax.workdir import shards

REMAT = "keep_products"
Epoch = Callable[[], tuple[list[float], dict[str, Any]]]


def prepare(model: Model, job: Job, count: int) -> Epoch:
    """An epoch over the first `count` examples, as a function that can be called again: it gives
    the loss of each step, and what is compared once. The adapter is fresh at first; references are
    computed here."""
    config = get_config()
    phase, group = PHASES[job.phase], config[job.phase]
    group.learning_rate, group.clip_norm, group.batch = job.learning_rate, job.clip_norm, job.batch
    group.warmup, group.epochs, group.remat = 0.0, 1, REMAT
    config.dpo.beta = job.beta
    config.data.task, config.model.path = "gsm8k", model.source
    group.held_out = 0.0
    settings = parse(config.to_dict())
    wanted = settings.phases[job.phase]
    mesh = meshes.make()
    adapter = lora.init(model.config, jax.random.key(0), rank=job.rank, alpha=job.alpha)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{job.phase}.parquet"
        shards.write(path, _rows(job, count), phase.schema)
        data, _ = examples.load(path, Path(folder), phase, settings, model, mesh, adapter)
    order = plan(
        data.examples, batch=job.batch, accumulate=1, epochs=1, seed=[0], rows=steps.rows(mesh)
    )
    tx = optim.adamw(
        job.learning_rate,
        len(order),
        warmup=0.0,
        weight_decay=0.0,
        b1=0.9,
        b2=0.999,
        clip_norm=job.clip_norm,
    )
    state = steps.init(tx, adapter, mesh)
    loss = phase.loss(wanted)
    step = steps.training(model.config, tx, loss, state, remat=wanted.remat)
    about: dict[str, Any] = {"parameters": sum(x.size for x in jax.tree.leaves(adapter))}
    if job.phase == "dpo":  # the fresh adapter's own, for it changes nothing yet
        about["logps"] = data.arrays["reference"].mean(0).tolist()

    def epoch() -> tuple[list[float], dict[str, Any]]:
        nonlocal state
        figures = []
        for i in range(len(order)):
            batches, extra = data.step(phase, order, i, model.tokenizer.pad_id)
            state, metrics = step(model.params, state, *steps.place(mesh, batches, extra))
            figures.append(float(metrics["loss"]))
        return figures, about

    return epoch


def _rows(job: Job, count: int) -> list[dict[str, Any]]:
    kinds = ["completion"] if job.phase == "sft" else ["chosen", "rejected"]
    return [
        {"question_id": str(i), "prompt_token_ids": prompt}
        | {f"{kind}_token_ids": ids for kind, ids in zip(kinds, completions, strict=True)}
        for i, (prompt, completions) in enumerate(job.examples[:count])
    ]


def main() -> None:
    model, job = models.load(Path(sys.argv[1])), training_job.read(sys.argv[2])
    epochs: dict[int, Epoch] = {}

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        count = request["count"]
        if count not in epochs:
            epochs[count] = prepare(model, job, count)
        started = time.perf_counter()
        losses, about = epochs[count]()
        return {"losses": losses, "seconds": time.perf_counter() - started, **about}

    serve(handle)


if __name__ == "__main__":
    main()
