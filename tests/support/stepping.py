"""Optimiser steps of a random model."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import small

from malt_jax.learn import losses, optim, steps
from malt_jax.learn.packing import examples
from malt_jax.models import lora
from malt_jax.runtime import mesh

MODEL = small.model(scale=2.0)


MESH = mesh.make()


RNG = np.random.default_rng(0)


LENGTHS = [(4, 3), (9, 20), (2, 1), (14, 8), (5, 30), (7, 2), (11, 11), (3, 5)]


DATA = examples(
    [RNG.integers(4, 90, p).tolist() for p, _ in LENGTHS],
    [[RNG.integers(4, 90, c).tolist()] for _, c in LENGTHS],
    512,
    [str(i) for i in range(len(LENGTHS))],
)


def sft(logps, batch, extra):
    counted = batch.sequence < batch.sequences
    loss, metrics = losses.sft_loss(logps, counted, denominator=extra["denominator"])
    return loss * extra["factor"], metrics


TX = optim.adamw(1e-3, 100, warmup=0.0, weight_decay=0.1, b1=0.9, b2=0.999, clip_norm=1.0)


@lru_cache
def fresh(tx):
    adapter = lora.init(MODEL.config, jax.random.key(1), rank=4, alpha=8.0, targets=("q", "down"))
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: x + np.float32(rng.normal(0, 0.1, x.shape)), adapter)
    return steps.init(tx, jax.device_put(noisy, mesh.tree_shardings(MESH, noisy)), MESH)


def start(tx=TX):
    return jax.tree.map(jnp.copy, fresh(tx))
