"""Adapters that show in the logits, and files of adapters with a tensor spoilt."""

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from malt_jax.models import Adapter, lora


def filled(config, seed: int, rank=4, alpha=6.0, targets=lora.TARGETS) -> Adapter:
    """An adapter with B drawn as well, large enough to move the logits by more than 0.1."""
    adapter = lora.init(config, jax.random.key(seed), rank=rank, alpha=alpha, targets=targets)
    leaves, tree = jax.tree.flatten(adapter)
    keys = jax.random.split(jax.random.key(seed + 100), len(leaves))
    drawn = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def damage(path: Path, name: str, array: np.ndarray | None) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    tensors.pop(name, None)
    if array is not None:
        tensors[name] = array
    save_file(tensors, path / "adapter_model.safetensors")
