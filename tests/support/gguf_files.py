"""Models of transformers as GGUF files, written by the format's own library."""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import transformers
from tokenizers import pre_tokenizers

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WORDS = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc", "12"]


def interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head as GGUF orders them: 0, H/2, 1, H/2 + 1, ..."""
    size = len(array) // heads
    order = np.arange(size).reshape(2, -1).T.ravel()
    return array.reshape(heads, size, -1)[:, order].reshape(array.shape)


def gguf_name(name: str) -> str:
    """A Hugging Face tensor's name in GGUF."""
    for full, short in NAMES.items():
        if match := re.fullmatch(rf"model\.layers\.(\d+)\.{re.escape(full)}\.(\w+)", name):
            return f"blk.{match[1]}.{short}.{match[2]}"
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    module, _, kind = name.rpartition(".")
    return f"{outer[module]}.{kind}"


def keys_of(config: transformers.PreTrainedConfig) -> dict[str, Any]:
    """The metadata of a model with a small byte-level tokenizer."""
    sizes = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
    }
    if config.model_type != "qwen2":  # whose converter leaves it out
        sizes["attention.key_length"] = config.head_dim
    return {
        "general.architecture": config.model_type,
        **{f"{config.model_type}.{name}": size for name, size in sizes.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.merges": ["a b", "ab c", "1 2"],
        "tokenizer.ggml.token_type": [3] + [1] * (len(WORDS) - 1),
        "tokenizer.ggml.eos_token_id": 0,
    }


def write(file: Path, model: transformers.PreTrainedModel, quantise=None, **metadata) -> Path:
    """Writes a model as GGUF; `metadata` (dots as double underscores) adds or replaces keys."""
    config = model.config
    keys = keys_of(config) | {key.replace("__", "."): value for key, value in metadata.items()}
    writer = gguf.GGUFWriter(file, keys.pop("general.architecture"))
    for key, value in keys.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add.get(type(value), writer.add_array)(key, value)
    for hf_name, tensor in model.state_dict().items():
        name, array = gguf_name(hf_name), tensor.numpy()
        if name == "output.weight" and config.tie_word_embeddings:
            continue
        if config.model_type == "llama" and ("attn_q" in name or "attn_k" in name):
            heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
            array = interleaved(array, heads)
        if quantise is not None and array.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(array, quantise), raw_dtype=quantise)
        else:
            writer.add_tensor(name, array.astype(np.float32))
    if config.rope_parameters["rope_type"] == "llama3":
        exponents = np.arange(0, config.head_dim, 2) / config.head_dim
        plain = config.rope_parameters["rope_theta"] ** -exponents
        factors = plain / model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
