"""GGUF files of the architectures llama, qwen2 and qwen3: config, tokenizer, and weights
dequantised one by one."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from gguf import GGUFReader, ReaderTensor, TokenType
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.models.weights import EMBED, HEAD, LAYER_NAMES, Index, Stored
from malt_jax.text.tokenizer import Tokenizer

T = TypeVar("T")

ARCHITECTURES = ("llama", "qwen2", "qwen3")
ROPE_FACTORS = "rope_freqs.weight"
_LAYER_PARTS = {
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
_OUTER = {
    "token_embd.weight": EMBED,
    "output_norm.weight": "model.norm.weight",
    "output.weight": HEAD,
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_UNSUPPORTED = ("expert_count", "attention.sliding_window", "attention.clamp_kqv", "logit_scale")


def open_file(file: Path) -> GGUFReader:
    """Reads metadata and the list of tensors. Raises ValueError if it is not a whole GGUF file."""
    with _naming(file):
        return GGUFReader(file)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Whatever metadata that no writer wrote makes of the libraries, as a ValueError that names the
    file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(file) in str(error):
            raise
        raise ValueError(
            f"{file}: not a readable GGUF file ({type(error).__name__}: {error})"
        ) from error


def _named(read: Callable[[GGUFReader], T]) -> Callable[[GGUFReader], T]:
    """`read`, whose errors name the file."""

    @wraps(read)
    def reading(reader: GGUFReader) -> T:
        with _naming(_path(reader)):
            return read(reader)

    return reading


@_named
def config(reader: GGUFReader) -> LlamaConfig:
    """The model's shape. Raises ValueError naming the metadata key the port cannot honour."""
    if (arch := _architecture(reader)) not in ARCHITECTURES:
        raise ValueError(
            f"{_path(reader)}: general.architecture: {arch!r} is not one of {ARCHITECTURES}"
        )
    for key in _UNSUPPORTED:
        if _value(reader, f"{arch}.{key}"):
            raise ValueError(f"{_path(reader)}: {arch}.{key} is not supported")
    names = {tensor.name: tensor for tensor in reader.tensors}
    if "token_embd.weight" not in names:
        raise ValueError(f"{_path(reader)}: token_embd.weight is missing")
    heads = _needed(reader, f"{arch}.attention.head_count")
    hidden = _needed(reader, f"{arch}.embedding_length")
    fields = {
        "model_type": arch,
        "vocab_size": int(names["token_embd.weight"].shape[1]),
        "hidden_size": hidden,
        "intermediate_size": _needed(reader, f"{arch}.feed_forward_length"),
        "num_hidden_layers": _needed(reader, f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(reader, f"{arch}.attention.head_count_kv", heads),
        "head_dim": _value(reader, f"{arch}.attention.key_length", hidden // heads),
        "max_position_embeddings": _needed(reader, f"{arch}.context_length"),
        "rms_norm_eps": _needed(reader, f"{arch}.attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope_fields(reader),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_gate.bias" in names,
    }
    try:
        found = LlamaConfig.from_hf(fields)
    except ValueError as error:
        raise ValueError(f"{_path(reader)}: {error}") from None
    for key in (f"{arch}.attention.value_length", f"{arch}.rope.dimension_count"):
        if (size := _value(reader, key, found.head_dim)) != found.head_dim:
            raise ValueError(
                f"{_path(reader)}: {key}: {size} differs from the head size {found.head_dim}"
            )
    if ROPE_FACTORS in names:
        _check_factors(reader, found)
    return found


@_named
def tensors(reader: GGUFReader) -> dict[str, Stored]:
    """Lists the tensors under their Hugging Face names; reads nothing yet."""
    arch = _architecture(reader)
    heads = _needed(reader, f"{arch}.attention.head_count")
    kv_heads = _value(reader, f"{arch}.attention.head_count_kv", heads)
    interleaved = {"attn_q": heads, "attn_k": kv_heads} if arch == "llama" else {}
    size = _path(reader).stat().st_size
    found = {}
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if tensor.data_offset + tensor.n_bytes > size:
            raise ValueError(f"{_path(reader)}: {tensor.name} reaches beyond the end of the file")
        permuted = interleaved.get(tensor.name.split(".")[-2])
        shape = tuple(int(n) for n in reversed(tensor.shape))
        found[_hf_name(tensor.name)] = Stored(
            _path(reader), shape, partial(_read, _path(reader), tensor, shape, permuted)
        )
    return found


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
        if part in _LAYER_PARTS:
            return f"model.layers.{layer}.{LAYER_NAMES[_LAYER_PARTS[part]]}.{kind}"
    return _OUTER.get(name, name)


def _rope_fields(reader: GGUFReader) -> dict[str, Any]:
    arch = _architecture(reader)
    theta = _value(reader, f"{arch}.rope.freq_base", 10_000.0)
    kind = _value(reader, f"{arch}.rope.scaling.type", "none")
    if ROPE_FACTORS in {tensor.name for tensor in reader.tensors}:
        return {"rope_type": "llama3", "rope_theta": theta, **_llama3_fields(_factors(reader))}
    if kind == "linear":
        factor = _needed(reader, f"{arch}.rope.scaling.factor")
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    if kind != "none":
        raise ValueError(
            f"{_path(reader)}: {arch}.rope.scaling.type: {kind!r} is not 'none' or 'linear'"
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


def _check_factors(reader: GGUFReader, found: LlamaConfig) -> None:
    plain = llama.rope_frequencies(Rope(found.rope.theta), found.head_dim)
    expected = plain / llama.rope_frequencies(found.rope, found.head_dim)
    factors = _factors(reader)
    if factors.shape != expected.shape or not jnp.allclose(factors, expected, rtol=1e-3):
        raise ValueError(
            f"{_path(reader)}: {ROPE_FACTORS} is not Llama 3's frequency scaling (low 1, high 4,"
            " original context 8192); other scaling needs the Hugging Face directory"
        )


_GPT2_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_SPLITS = {"llama-bpe": _LLAMA3_SPLIT, "qwen2": _LLAMA3_SPLIT.replace("{1,3}", "")}


def _pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer | None:
    if kind in ("default", "gpt-2", "gpt2"):
        return _GPT2_SPLIT
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, _GPT2_SPLIT])
    if kind in _BYTE_SPLITS:
        split = pre_tokenizers.Split(Regex(_BYTE_SPLITS[kind]), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, byte_level])
    return None


@_named
def tokenizer(reader: GGUFReader) -> Tokenizer:
    """Builds the tokenizer from the metadata: byte-level BPE, split as tokenizer.ggml.pre says.

    Raises ValueError naming the key for other kinds of tokenizer.
    """
    if (model := _value(reader, "tokenizer.ggml.model")) != "gpt2":
        raise ValueError(
            f"{_path(reader)}: tokenizer.ggml.model: {model!r} is not supported, only 'gpt2'"
            " (byte-level BPE); use the Hugging Face directory"
        )
    kind = _value(reader, "tokenizer.ggml.pre", "default")
    pre_tokenizer = _pre_tokenizer(kind)
    if pre_tokenizer is None:
        raise ValueError(
            f"{_path(reader)}: tokenizer.ggml.pre: {kind!r} is not one of 'gpt-2', 'smollm',"
            " 'llama-bpe', 'qwen2'; use the Hugging Face directory"
        )
    tokens: list[str] = _needed(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in _needed(reader, "tokenizer.ggml.merges")]
    types = _value(reader, "tokenizer.ggml.token_type", [TokenType.NORMAL] * len(tokens))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a piece that is a token as it stands, before any merging.
    fast = FastTokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "llama-bpe"))
    if kind == "qwen2":
        fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizer
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(_added(tokens, types, TokenType.CONTROL))
    fast.add_tokens(_added(tokens, types, TokenType.USER_DEFINED))
    ids = {
        name: _value(reader, f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    return Tokenizer.build(
        fast,
        {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None},
        chat_template=_value(reader, "tokenizer.chat_template"),
        adds_bos=bool(_value(reader, "tokenizer.ggml.add_bos_token", kind == "llama-bpe")),
    )


def _added(tokens: list[str], types: list[int], wanted: TokenType) -> list[AddedToken]:
    special = wanted == TokenType.CONTROL
    return [
        AddedToken(token, normalized=False, special=special)
        for token, kind in zip(tokens, types, strict=True)
        if kind == wanted
    ]


def _architecture(reader: GGUFReader) -> str:
    """What the names of the model's own metadata begin with."""
    return str(_value(reader, "general.architecture"))


def _path(reader: GGUFReader) -> Path:
    return Path(str(reader.data.filename))


def _value(reader: GGUFReader, key: str, default: Any = None) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _needed(reader: GGUFReader, key: str) -> Any:
    if (found := _value(reader, key)) is None:
        raise ValueError(f"{_path(reader)}: {key} is missing")
    return found
