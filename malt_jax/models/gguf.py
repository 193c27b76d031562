"""GGUF files of the architectures llama, qwen2 and qwen3: config, tokenizer, and weights
dequantised one by one."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.models.gguf_metadata import architecture, named, needed, open_file, path, value
from malt_jax.models.gguf_tokenizer import tokenizer
from malt_jax.models.weights import EMBED, HEAD, LAYER_NAMES, Index, Stored

__all__ = ["ARCHITECTURES", "config", "open_file", "tensors", "tokenizer"]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
ROPE_FACTORS = "rope_freqs.weight"
LAYER_PARTS = {
    "attn_norm": "attn_norm",
    "ffn_norm": "mlp_norm",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "attn_q_norm": "q_norm",
    "attn_k_norm": "k_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
OUTER = {
    "token_embd.weight": EMBED,
    "output_norm.weight": "model.norm.weight",
    "output.weight": HEAD,
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_UNSUPPORTED = ("expert_count", "attention.sliding_window", "attention.clamp_kqv", "logit_scale")


@named
def config(reader: GGUFReader) -> LlamaConfig:
    """The model's shape. Raises ValueError naming the metadata key the port cannot honour."""
    if (arch := architecture(reader)) not in ARCHITECTURES:
        raise ValueError(
            f"{path(reader)}: general.architecture: {arch!r} is not one of {ARCHITECTURES}"
        )
    for key in _UNSUPPORTED:
        if value(reader, f"{arch}.{key}"):
            raise ValueError(f"{path(reader)}: {arch}.{key} is not supported")
    names = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in names:
        raise ValueError(f"{path(reader)}: token_embd.weight is missing")
    heads = needed(reader, f"{arch}.attention.head_count")
    hidden = needed(reader, f"{arch}.embedding_length")
    fields = {
        "model_type": arch,
        "vocab_size": int(names["token_embd.weight"].shape[1]),
        "hidden_size": hidden,
        "intermediate_size": needed(reader, f"{arch}.feed_forward_length"),
        "num_hidden_layers": needed(reader, f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value(reader, f"{arch}.attention.head_count_kv", heads),
        "head_dim": value(reader, f"{arch}.attention.key_length", hidden // heads),
        "max_position_embeddings": needed(reader, f"{arch}.context_length"),
        "rms_norm_eps": needed(reader, f"{arch}.attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope_fields(reader),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_gate.bias" in names,
    }
    try:
        shape = LlamaConfig.from_hf(fields)
    except ValueError as error:
        raise ValueError(f"{path(reader)}: {error}") from None
    for key in (f"{arch}.attention.value_length", f"{arch}.rope.dimension_count"):
        if (size := value(reader, key, shape.head_dim)) != shape.head_dim:
            raise ValueError(
                f"{path(reader)}: {key}: {size} differs from the head size {shape.head_dim}"
            )
    if ROPE_FACTORS in names:
        _check_factors(reader, shape)
    return shape


@named
def tensors(reader: GGUFReader) -> dict[str, Stored]:
    """Lists the tensors under their Hugging Face names; reads nothing yet."""
    arch = architecture(reader)
    heads = needed(reader, f"{arch}.attention.head_count")
    kv_heads = value(reader, f"{arch}.attention.head_count_kv", heads)
    interleaved = {"attn_q": heads, "attn_k": kv_heads} if arch == "llama" else {}
    size = path(reader).stat().st_size
    stored = {}
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if tensor.data_offset + tensor.n_bytes > size:
            raise ValueError(f"{path(reader)}: {tensor.name} reaches beyond the end of the file")
        permuted = interleaved.get(tensor.name.split(".")[-2])
        shape = tuple(int(n) for n in reversed(tensor.shape))
        stored[_hf_name(tensor.name)] = Stored(
            path(reader), shape, partial(_read, path(reader), tensor, shape, permuted)
        )
    return stored


def _read(
    file: Path, tensor: ReaderTensor, shape: tuple[int, ...], heads: int | None, index: Index
) -> np.ndarray:
    # All of it, then the part: blocks of quantised numbers and turned heads do not follow slices.
    # Read anew rather than through the reader's map, whose pages would count as memory in use.
    raw = np.fromfile(file, np.uint8, count=tensor.n_bytes, offset=tensor.data_offset)
    try:
        array = dequantize(
            raw.view(tensor.data.dtype).reshape(tensor.data.shape), tensor.tensor_type
        )
    except NotImplementedError:
        raise ValueError(
            f"{tensor.name} in {file}: {tensor.tensor_type.name} cannot be dequantised here;"
            " requantise the file, for example to Q8_0"
        ) from None
    array = array.reshape(shape)
    return (array if heads is None else _unpermuted(array, heads))[index]


def _unpermuted(array: np.ndarray, heads: int) -> np.ndarray:
    """GGUF's Llama interleaves the halves of a head that rotary embeddings pair; here they lie
    apart."""
    paired = array.reshape(heads, -1, 2, *array.shape[1:])
    return paired.swapaxes(1, 2).reshape(array.shape)


def _hf_name(name: str) -> str:
    if match := _LAYER_NAME.fullmatch(name):
        layer, part, kind = match.groups()
        if part in LAYER_PARTS:
            return f"model.layers.{layer}.{LAYER_NAMES[LAYER_PARTS[part]]}.{kind}"
    return OUTER.get(name, name)


def _rope_fields(reader: GGUFReader) -> dict[str, Any]:
    arch = architecture(reader)
    theta = value(reader, f"{arch}.rope.freq_base", 10_000.0)
    kind = value(reader, f"{arch}.rope.scaling.type", "none")
    if ROPE_FACTORS in {tensor.name for tensor in reader.tensors}:
        return {"rope_type": "llama3", "rope_theta": theta, **_llama3_fields(_factors(reader))}
    if kind == "linear":
        factor = needed(reader, f"{arch}.rope.scaling.factor")
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    if kind != "none":
        raise ValueError(
            f"{path(reader)}: {arch}.rope.scaling.type: {kind!r} is not 'none' or 'linear'"
        )
    return {"rope_type": "default", "rope_theta": theta}


def _factors(reader: GGUFReader) -> np.ndarray:
    tensor = next(tensor for tensor in reader.tensors if tensor.name == ROPE_FACTORS)
    return np.asarray(tensor.data, np.float32).reshape(-1)


def _llama3_fields(factors: np.ndarray) -> dict[str, float]:
    """GGUF keeps each frequency's divisor, not what it was made from.

    The largest is `factor`; the rest is taken to be as in every published Llama 3 and checked
    afterwards.
    """
    return {
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _check_factors(reader: GGUFReader, shape: LlamaConfig) -> None:
    plain = llama.rope_frequencies(Rope(shape.rope.theta), shape.head_dim)
    expected = plain / llama.rope_frequencies(shape.rope, shape.head_dim)
    factors = _factors(reader)
    if factors.shape != expected.shape or not jnp.allclose(factors, expected, rtol=1e-3):
        raise ValueError(
            f"{path(reader)}: {ROPE_FACTORS} is not Llama 3's frequency scaling (low 1, high 4,"
            " original context 8192); other scaling needs the Hugging Face directory"
        )
