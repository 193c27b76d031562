"""GGUF files for llama.cpp: an adapter, to be put on its base in GGUF, and a base that was read
from such a file with an adapter in its weights."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

from malt_jax.models import gguf, merged
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params, rank
from malt_jax.models.weights import LAYER_NAMES

_PARTS = {ours: theirs for theirs, ours in gguf.LAYER_PARTS.items()}
_NAMES = {name: _PARTS[part] for part, name in LAYER_NAMES.items()}
_OUTER = {ours: theirs for theirs, ours in gguf.OUTER.items()}
# What the writer writes itself, or what holds for the weights of the file that was read alone.
_OWN = {"general.architecture", "general.file_type", "general.quantization_version"}


def save_adapter(file: Path, config: LlamaConfig, adapter: Adapter) -> None:
    """Writes an adapter in float32, as llama.cpp's `--lora` takes it: of a projection
    `lora_a` [r, in] and `lora_b` [out, r], and alpha."""
    writer = GGUFWriter(file, _architecture(config))
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.scale * rank(adapter))
    for i, targets in sorted(adapter.layers.items()):
        for target, pair in targets.items():
            name = f"blk.{i}.{_PARTS[target]}.weight"
            a, b = (np.asarray(pair[letter], np.float32).T for letter in ("a", "b"))
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{name}.lora_b", _rows_as_there(name, b, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_merged(
    file: Path, source: GGUFReader, config: LlamaConfig, params: Params, adapter: Adapter | None
) -> None:
    """Writes `merged.tensors` with the metadata and the tokenizer of the GGUF file that the base
    was read from. Matrices have the parameters' dtype, vectors float32.

    Host memory holds one tensor at a time, in float32.
    """
    writer = GGUFWriter(file, _architecture(config))
    for field in source.fields.values():
        if field.types and not field.name.startswith("GGUF.") and field.name not in _OWN:
            inside = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inside)
    half = params["embed"].dtype != np.float32
    writer.add_file_type(LlamaFileType.MOSTLY_BF16 if half else LlamaFileType.ALL_F32)
    named = {_name(name): tensor for name, tensor in merged.tensors(params, adapter).items()}
    for name, tensor in named.items():
        halves = half and len(tensor.shape) > 1
        kind = GGMLQuantizationType.BF16 if halves else GGMLQuantizationType.F32
        size = int(np.prod(tensor.shape)) * (2 if halves else 4)
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, kind)
    factors = [tensor for tensor in source.tensors if tensor.name == gguf.ROPE_FACTORS]
    for stored in factors:
        array = np.asarray(stored.data, np.float32)
        writer.add_tensor_info(stored.name, array.shape, array.dtype, array.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in named.items():
        array = _rows_as_there(name, tensor.compute(), config)
        halves = half and array.ndim > 1
        writer.write_tensor_data(array.view(np.uint16) if halves else array.astype(np.float32))
    for stored in factors:
        writer.write_tensor_data(np.asarray(stored.data, np.float32))
    writer.close()


def _architecture(config: LlamaConfig) -> str:
    return "llama" if config.family == "mistral" else config.family


def _name(name: str) -> str:
    """A Hugging Face tensor's name in GGUF."""
    if name in _OUTER:
        return _OUTER[name]
    _, _, layer, module = name.split(".", 3)
    module, _, kind = module.rpartition(".")
    return f"blk.{layer}.{_NAMES[module]}.{kind}"


def _rows_as_there(name: str, array: np.ndarray, config: LlamaConfig) -> np.ndarray:
    """GGUF's Llama interleaves the halves of a head that rotary embeddings pair: what
    `gguf.tensors` undoes."""
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}.get(name.split(".")[-2])
    if heads is None or _architecture(config) != "llama":
        return np.ascontiguousarray(array)
    apart = array.reshape(heads, 2, -1, *array.shape[1:])
    return np.ascontiguousarray(apart.swapaxes(1, 2).reshape(array.shape))
