"""From tensors on disk to the parameter tree, one tensor at a time, whatever the file format. Of a
tensor that is split over devices, a host reads what its own devices hold.

A format (`hf`, `gguf`) lists its tensors under their Hugging Face names without reading them; this
file checks the list against the config before any memory is taken, and then reads.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Params

TreePath = tuple[str | int, ...]
"""Where a parameter stands in the tree, for example `("layers", 0, "q", "kernel")`."""
Placement = Callable[[TreePath, tuple[int, ...]], jax.sharding.Sharding]
"""From where a parameter of some shape stands in the tree to the devices it goes to."""
Index = tuple[slice, ...]
"""A part of a tensor: a slice an axis, of step 1."""

HEAD = "lm_head.weight"
EMBED = "model.embed_tokens.weight"
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


@dataclass(frozen=True)
class Stored:
    """A tensor on disk, not read yet. `shape` is Hugging Face's: [out, in] for a projection. `read`
    gives the part of an index; () is all of it."""

    file: Path
    shape: tuple[int, ...]
    read: Callable[[Index], np.ndarray]


def hf_name(path: TreePath) -> str:
    """The Hugging Face name of a parameter."""
    match path:
        case ("embed",):
            return EMBED
        case ("head",):
            return HEAD
        case ("norm", "scale"):
            return "model.norm.weight"
        case ("layers", int(i), str(module), str(leaf)):
            kind = "bias" if leaf == "bias" else "weight"
            return f"model.layers.{i}.{LAYER_NAMES[module]}.{kind}"
    raise KeyError(path)


def build(
    config: LlamaConfig,
    stored: Mapping[str, Stored],
    dtype: Any,
    placement: Placement | None = None,
) -> Params:
    """Reads every parameter of `config` in `dtype`; holds one tensor at a time, or its parts,
    beside those placed.

    Raises ValueError naming the tensor, its file, and both shapes where the files and the config
    disagree, and a tensor that holds NaN or infinity.
    """
    if config.num_layers > len(stored):  # or the list of what is wanted would fill the memory
        raise ValueError(
            f"config: {config.num_layers} layers, but {_files(stored)} has {len(stored)} tensors "
            "in all"
        )
    leaves, tree = jax.tree.flatten_with_path(llama.param_shapes(config, dtype))
    wanted = {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}
    _check(config, wanted, stored)
    if config.tied and HEAD in stored:
        _check_tied_head(stored)
    placed = [
        _placed(stored[hf_name(path)], dtype, placement and placement(path, shape))
        for path, shape in wanted.items()
    ]
    finite = jax.device_get([_finite(leaf) for leaf in placed])
    for path, good in zip(wanted, finite, strict=True):
        if not good:
            name = hf_name(path)
            raise ValueError(f"{name} in {stored[name].file}: holds NaN or infinity as {dtype}")
    return jax.tree.unflatten(tree, placed)


def _files(stored: Mapping[str, Stored]) -> str:
    return ", ".join(sorted({tensor.file.name for tensor in stored.values()})) or "no file"


@jax.jit
def _finite(leaf: jax.Array) -> jax.Array:
    return jnp.isfinite(leaf).all()


def _placed(tensor: Stored, dtype: Any, sharding: jax.sharding.Sharding | None) -> jax.Array:
    read: dict[tuple[tuple[int, ...], ...], np.ndarray] = {}

    def part(index: Index | None) -> np.ndarray:
        """Read once for all devices that hold the same part."""
        index = index or ()
        key = tuple(s.indices(size) for s, size in zip(index, tensor.shape, strict=False))
        if key not in read:
            read[key] = np.ascontiguousarray(tensor.read(index), dtype=jnp.dtype(dtype))
        return read[key]

    if sharding is None:
        return jnp.asarray(part(()))
    return jax.make_array_from_callback(tensor.shape, sharding, part)


def _check(
    config: LlamaConfig, wanted: Mapping[TreePath, tuple[int, ...]], stored: Mapping[str, Stored]
) -> None:
    shapes = {hf_name(path): shape for path, shape in wanted.items()}
    if missing := sorted(shapes.keys() - stored.keys()):
        raise ValueError(f"{_some(missing)}: missing from {_files(stored)}")
    allowed = {HEAD} if config.tied else set()
    if extra := sorted(stored.keys() - shapes.keys() - allowed):
        raise ValueError(
            f"{_some(extra)}: unexpected in {stored[extra[0]].file}; the config has no place for it"
        )
    if config.tied:
        shapes[HEAD] = shapes[EMBED]
    for name, tensor in stored.items():
        if tensor.shape != shapes[name]:
            raise ValueError(
                f"{name} in {tensor.file}: got shape {tensor.shape}, the config expects"
                f" {shapes[name]}"
            )


def _check_tied_head(stored: Mapping[str, Stored]) -> None:
    if not np.array_equal(stored[HEAD].read(()), stored[EMBED].read(())):
        raise ValueError(
            f"{HEAD} in {stored[HEAD].file}: differs from {EMBED}, though"
            " config.tie_word_embeddings is true; set it to false or remove the tensor"
        )


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} (and {len(others)} more)" if others else first
