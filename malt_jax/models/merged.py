"""A base, bare or with an adapter added to its weights: its tensors one at a time, and a Hugging
Face directory of them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from malt_jax.models.config import LlamaConfig
from malt_jax.models.hf import SINGLE
from malt_jax.models.lora import Adapter, Params
from malt_jax.models.weights import hf_name

_DTYPES = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file to be: known by shape and dtype, computed when its turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    compute: Callable[[], np.ndarray]


def save_merged(
    directory: Path, config: LlamaConfig, params: Params, adapter: Adapter | None
) -> None:
    """Writes `config.json` and `model.safetensors` of `tensors`.

    Host memory holds one tensor at a time, in float32.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fields = config.to_hf() | {"dtype": str(params["embed"].dtype)}
    (directory / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    _write(directory / SINGLE, tensors(params, adapter))


def tensors(params: Params, adapter: Adapter | None) -> dict[str, Tensor]:
    """By Hugging Face name the weights of y = x (W + (alpha / r) (A B)^T)^T in the parameters' own
    dtype; the parameters as they are if `adapter` is None. Sums are taken in float32."""
    named = {}
    for keys, leaf in jax.tree.leaves_with_path(params):
        path = tuple(key.key for key in keys)
        named[hf_name(path)] = Tensor(leaf.shape, leaf.dtype, _merged(path, leaf, adapter))
    return named


def _merged(
    path: tuple[str | int, ...], leaf: jax.Array, adapter: Adapter | None
) -> Callable[[], np.ndarray]:
    pair = None
    match path:
        case ("layers", int(i), str(target), "kernel") if adapter is not None:
            pair = adapter.layers.get(i, {}).get(target)

    def compute() -> np.ndarray:
        weight = np.asarray(leaf)
        if pair is None or adapter is None:
            return weight
        a, b = np.asarray(pair["a"], np.float32), np.asarray(pair["b"], np.float32)
        delta = (adapter.scale * (a @ b)).T
        return (weight.astype(np.float32) + delta).astype(weight.dtype)

    return compute


def _write(file: Path, named: Mapping[str, Tensor]) -> None:
    """The safetensors format: the header's length, the header with every tensor's place, and the
    tensors. The library's own writer wants all of them in memory at once."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in named.items():
        start, end = end, end + tensor.dtype.itemsize * int(np.prod(tensor.shape))
        header[name] = {
            "dtype": _DTYPES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in named.values():
            stream.write(np.ascontiguousarray(tensor.compute()).reshape(-1).view(np.uint8).data)
