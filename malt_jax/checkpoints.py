"""Checkpoints of one role's phase: adapter, optimiser state and step, through Orbax; never a copy
of the base."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


def manager(directory: Path, keep: int = 2) -> ocp.CheckpointManager:
    """A manager of `directory`, which holds the last `keep` steps; each commits whole or not at
    all."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Writes `state` (a pytree of arrays) as the checkpoint of `step`, in the background."""
    # A copy: the caller's next step may take over the buffers while they are being written.
    checkpoints.save(step, args=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)))


def restore(checkpoints: ocp.CheckpointManager, like: Any) -> tuple[int, Any]:
    """The newest (step, state), shaped and sharded like `like`; (0, like) where there is none.

    Raises ValueError naming the directory if the checkpoint does not fit `like` or cannot be read.
    """
    step = checkpoints.latest_step()
    if step is None:
        return 0, like
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    try:
        return step, checkpoints.restore(step, args=ocp.args.StandardRestore(abstract))
    except Exception as error:
        raise ValueError(
            f"{checkpoints.directory / str(step)}: does not restore ({error}); if the "
            "files are damaged delete this step, training then goes on from the one before"
        ) from error
