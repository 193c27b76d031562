"""Checkpoints of a small state."""

from pathlib import Path

import jax.numpy as jnp

from malt_jax.workdir import checkpoints


def state(value: float) -> dict:
    return {"adapter": {"a": jnp.full((3, 5), value)}, "opt_state": jnp.int32(value)}


def everything(store) -> list[int]:
    return checkpoints.steps(store)


def saved(directory: Path, *steps: int) -> Path:
    with checkpoints.opened(directory) as store:
        for step in steps:
            checkpoints.save(store, step, state(step), lambda: everything(store))
    return directory


def restored(directory: Path) -> tuple[int, dict]:
    with checkpoints.opened(directory) as store:
        return checkpoints.restore(store, state(0))
