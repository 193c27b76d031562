"""Hugging Face directories: `config.json` and safetensors, whole or in shards."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Params
from malt_jax.models.weights import Index, Stored, hf_name
from malt_jax.workdir.storage import check_regular, distinct, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_FLOATS = ("F32", "F16", "BF16")
T = TypeVar("T")
_ROTARY_BUFFER = re.compile(
    r"\brotary_emb\.inv_freq$"
)  # older exports carry what the config implies


def refuse_remote_code(config: dict[str, Any], path: Path) -> None:
    """Raises ValueError if a config asks for Python code from its own repository."""
    if config.get("auto_map"):
        raise ValueError(
            f"{path}: auto_map asks to run code that comes with the weights (trust_remote_code),"
            " which is refused; remove the field if transformers has the model itself"
        )


def config(directory: Path) -> LlamaConfig:
    """Reads `config.json`; raises ValueError for what the port cannot honour."""
    path = directory / "config.json"
    fields = read_json(path)
    refuse_remote_code(fields, path)
    try:
        return LlamaConfig.from_hf(fields)
    except (ValueError, TypeError, AttributeError) as error:  # fields of any type
        raise ValueError(f"{path}: {error}") from None


def tensors(directory: Path) -> dict[str, Stored]:
    """Lists the tensors of a directory by name; reads headers only.

    A whole `model.safetensors` goes before an index and shards beside it, as in transformers.
    Raises ValueError for pickled weights, broken files and an index that disagrees with its shards.
    """
    if (directory / SINGLE).exists():
        return _listed(directory / SINGLE)
    if (directory / INDEX).exists():
        return _sharded(directory)
    if pickled := sorted(p.name for p in directory.iterdir() if p.suffix in PICKLED):
        raise ValueError(
            f"{directory / pickled[0]}: pickled weights can run code and are refused; convert them"
            f" to safetensors (transformers: model.save_pretrained) and keep {SINGLE}"
        )
    raise ValueError(f"{directory}: holds neither {SINGLE} nor {INDEX}")


def _sharded(directory: Path) -> dict[str, Stored]:
    index = directory / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map is missing or empty")
    if strange := [file for file in weight_map.values() if not isinstance(file, str)]:
        raise ValueError(f"{index}: {strange[0]!r} is not a file name")
    stored: dict[str, Stored] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{index}: {shard!r} is not a plain file name")
        for name, tensor in _listed(directory / shard).items():
            if weight_map.get(name) != shard:
                raise ValueError(f"{name} in {directory / shard}: {INDEX} does not place it there")
            stored[name] = tensor
    for name, shard in weight_map.items():
        if name not in stored and not _ROTARY_BUFFER.search(name):
            raise ValueError(f"{name}: {INDEX} promises it in {directory / shard}, which lacks it")
    return stored


def _listed(file: Path) -> dict[str, Stored]:
    def header(tensors: Any) -> dict[str, Stored]:
        stored = {}
        for name in tensors.keys():  # noqa: SIM118 (not a dict)
            if _ROTARY_BUFFER.search(name):
                continue
            part = tensors.get_slice(name)
            if part.get_dtype() not in _FLOATS:
                raise ValueError(
                    f"{name} in {file}: dtype {part.get_dtype()} is not one of {_FLOATS}; quantised"
                    " checkpoints other than GGUF are not supported"
                )
            stored[name] = Stored(file, tuple(part.get_shape()), partial(_read, file, name))
        return stored

    stored = _open(file, header)
    check_header(file)
    return stored


def check_header(file: Path) -> None:
    """Raises ValueError if a readable safetensors file lists a tensor twice, of which the library
    takes one in silence."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        try:
            json.loads(stream.read(size), object_pairs_hook=distinct)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None


def _read(file: Path, name: str, index: Index) -> np.ndarray:
    # Opened anew for each tensor: a mapping kept open would count every page read so far as memory
    # in use.
    if not index:
        return _open(file, lambda tensors: tensors.get_tensor(name))
    return _open(file, lambda tensors: tensors.get_slice(name)[index])


def _open(file: Path, use: Callable[[Any], T]) -> T:
    check_regular(file)
    try:
        with safe_open(file, framework="numpy") as tensors:
            return use(tensors)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except SafetensorError as error:
        raise ValueError(f"{file}: not a readable safetensors file: {error}") from None


def save(directory: Path, config: LlamaConfig, params: Params) -> None:
    """Writes `config.json` and `model.safetensors` in the parameters' own dtype."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = config.to_hf() | {"dtype": str(params["embed"].dtype)}
    (directory / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    named = {}
    for keys, leaf in jax.tree.leaves_with_path(params):
        path = tuple(key.key for key in keys)
        named[hf_name(path)] = np.ascontiguousarray(leaf)
    save_file(named, directory / SINGLE, metadata={"format": "pt"})
