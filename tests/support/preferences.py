"""Settings of a preference loss, and an adapter off its start."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from training import MODEL, recipe

from malt_jax.models import lora

LOG2, BETA = float(np.log(2)), 0.2


def dpo(kind: str, **changes):
    noise = 0.1 if kind == "robust" else 0.0
    changes = {"loss": kind, "label_smoothing": noise, "beta": BETA} | changes
    return replace(recipe().phases["dpo"], **changes)


def adapter(seed: int):
    start = lora.init(MODEL.config, jax.random.key(0), rank=3, alpha=6.0)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), start)
