"""malt_jax: role training, one epoch a request.

python -m benchmarks.peers.ours_training DIRECTORY JOB.json
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peers import training_job
from benchmarks.peers.serving import serve
from benchmarks.peers.training_job import Job
from configs.base import get_config
from malt_jax import mesh as meshes
from malt_jax import models, settings, train
from malt_jax.batches import plan
from malt_jax.models import Model, lora

Epoch = Callable[[], tuple[list[float], dict[str, Any]]]


def prepare(model: Model, job: Job, count: int) -> Epoch:
    """An epoch over the first `count` examples, as a function that can be called again: it gives
    the loss of each step, and what is compared once. The adapter is fresh at first; references are
    computed here."""
    config = get_config()
    phase = config[job.phase]
    phase.learning_rate, phase.clip_norm, phase.batch = job.learning_rate, job.clip_norm, job.batch
    phase.warmup, phase.epochs, phase.remat = 0.0, 1, False
    config.dpo.beta = job.beta
    config.data.task, config.model.path = "gsm8k", model.source
    wanted = settings.parse(config.to_dict()).phase(job.phase)
    mesh = meshes.make()
    adapter = lora.init(model.config, jax.random.key(0), rank=job.rank, alpha=job.alpha)
    kinds = ["completion"] if job.phase == "sft" else ["chosen", "rejected"]
    rows = [
        {"prompt_token_ids": prompt}
        | {f"{kind}_token_ids": ids for kind, ids in zip(kinds, completions, strict=True)}
        for prompt, completions in job.examples[:count]
    ]
    data = train._data(job.phase, rows, model, mesh, adapter, job.batch)
    batches = plan(data.rows, job.batch, 1, 1, [0])
    tx = train._optimiser(wanted, len(batches))
    step = train._step(model, tx, train._loss(job.phase, model, wanted))
    state = {"adapter": adapter, "opt_state": tx.init(adapter)}

    about: dict[str, Any] = {"parameters": sum(x.size for x in jax.tree.leaves(adapter))}
    if job.phase == "dpo":  # the fresh adapter's own, for it changes nothing yet
        about["logps"] = data.reference.reshape(2, -1).mean(1).tolist()

    def epoch() -> tuple[list[float], dict[str, Any]]:
        nonlocal state
        found = []
        for chosen in batches:
            batch, extra = data.batch(chosen)
            extra["denominator"] = np.float32(train._weight(data, chosen))
            state, metrics = step(model.params, state, train._put(mesh, batch), extra)
            found.append(float(metrics["loss"]))
        return found, about

    return epoch


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
