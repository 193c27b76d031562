"""GGUF: config, weights and tokenizer of one file, held to the model it was written from."""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import transformers
from tokenizers import pre_tokenizers

from malt_jax.models import load

torch = pytest.importorskip("torch")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
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
TOKENS = np.random.default_rng(0).integers(0, 97, (2, 9))


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


def reference(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1, "head_dim": 12},
        {"attention_bias": True, "mlp_bias": True},
        {"rope_parameters": LLAMA3, "head_dim": 32},
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "tie_word_embeddings": True, "num_key_value_heads": 1},
        {"model_type": "qwen3", "head_dim": 12, "tie_word_embeddings": True},
    ],
)
def test_logits_equal_those_of_the_model_written(tiny_llama, tmp_path, fields):
    model = tiny_llama(**fields)
    found = load(write(tmp_path / "model.gguf", model))
    assert found.config.family == model.config.model_type
    assert found.config.rope.kind == model.config.rope_parameters["rope_type"]
    np.testing.assert_allclose(found.logits(TOKENS), reference(model), atol=1e-4, rtol=0)


def test_linear_rope_scaling_is_read(tiny_llama, tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
    model = tiny_llama(rope_parameters=rope)
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    found = load(write(tmp_path / "model.gguf", model, **scaling))
    np.testing.assert_allclose(found.logits(TOKENS), reference(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_quantised_weights_equal_transformers_reading_of_the_file(tiny_llama, tmp_path, family):
    """transformers knows nothing of this file's `write`: it holds the layout to the format's."""
    kind = gguf.GGMLQuantizationType.Q8_0
    size: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": len(WORDS)}
    size |= {"model_type": family}
    write(tmp_path / "model.gguf", tiny_llama(**size), quantise=kind)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    found = load(tmp_path)
    assert found.source.endswith("model.gguf")
    np.testing.assert_allclose(found.logits(TOKENS), reference(theirs), atol=1e-4, rtol=0)
    assert np.abs(reference(tiny_llama(**size)) - reference(theirs)).max() > 1e-3


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general__architecture": "qwen2moe"}, "general.architecture: 'qwen2moe'"),
        ({"general__architecture": "qwen2"}, "qwen2.attention.head_count is missing"),
        ({"llama__expert_count": 8}, "llama.expert_count"),
        ({"llama__rope__scaling__type": "yarn"}, "llama.rope.scaling.type: 'yarn'"),
        ({"llama__rope__dimension_count": 4}, "llama.rope.dimension_count: 4"),
        ({"llama__attention__head_count_kv": 3}, "num_key_value_heads"),
        ({"llama__embedding_length": 64}, "expects (97, 64)"),
        ({"llama__block_count": 3}, "model.layers.2"),
        ({"llama__block_count": 1}, "model.layers.1"),
    ],
)
def test_what_the_port_cannot_honour_is_refused(tiny_llama, tmp_path, metadata, message):
    file = write(tmp_path / "model.gguf", tiny_llama(), **metadata)
    with pytest.raises(ValueError, match=re.escape(message)):
        load(file)


def test_frequency_factors_of_another_kind_are_refused(tiny_llama, tmp_path):
    model = tiny_llama(rope_parameters=LLAMA3 | {"original_max_position_embeddings": 64})
    with pytest.raises(ValueError, match=r"rope_freqs\.weight is not Llama 3"):
        load(write(tmp_path / "model.gguf", model))


@pytest.mark.parametrize("kept", [3, 200, -400])
def test_a_truncated_file_is_refused(tiny_llama, tmp_path, kept):
    file = write(tmp_path / "model.gguf", tiny_llama())
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.gguf"):
        load(file)


def test_two_files_in_a_directory_are_one_too_many(tiny_llama, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        write(tmp_path / name, tiny_llama())
    with pytest.raises(ValueError, match=r"a\.gguf, b\.gguf"):
        load(tmp_path)


def pieces(tiny_llama, file: Path, text: str, **metadata) -> list[str]:
    tokenizer = load(write(file, tiny_llama(vocab_size=len(WORDS)), **metadata)).tokenizer
    return [tokenizer.fast.id_to_token(i) for i in tokenizer.encode(text)]


def test_pre_tokenizers_split_as_their_kind_says(tiny_llama, tmp_path):
    """Digits stand alone for SmolLM; Llama 3 takes up to three and lets them follow no space."""

    def split(kind: str, text: str) -> list[str]:
        file = tmp_path / f"{kind}.gguf"
        return pieces(tiny_llama, file, text, tokenizer__ggml__pre=kind)

    assert split("gpt-2", "abc 1212") == ["abc", "Ġ", "12", "12"]
    assert split("smollm", "abc 1212") == ["abc", "Ġ", "1", "2", "1", "2"]
    assert split("llama-bpe", "abc 1212") == ["abc", "Ġ", "12", "1", "2"]
    assert split("qwen2", "abc 1212") == ["abc", "Ġ", "1", "2", "1", "2"]


def test_qwen2_text_is_split_and_composed_as_transformers_does(tiny_llama, tmp_path):
    """Its own class of tokenizer is the reference; "e" and a combining accent become one letter."""
    merges = ["a b", "ab c", "1 2", "Ã ©", "! !", "Ġ !"]
    words = [*WORDS, "Ã©", "!!", "Ġ!"]
    vocabulary = {word: i for i, word in enumerate(words)}
    theirs = transformers.Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[tuple(merge.split(" ")) for merge in merges],
        eos_token="<|end|>",
        pad_token="<|end|>",
        unk_token="<|end|>",
    )
    model = tiny_llama(model_type="qwen2", vocab_size=len(words))
    metadata = {
        "tokenizer__ggml__pre": "qwen2",
        "tokenizer__ggml__tokens": words,
        "tokenizer__ggml__merges": merges,
        "tokenizer__ggml__token_type": [3] + [1] * (len(words) - 1),
    }
    ours = load(write(tmp_path / "model.gguf", model, **metadata)).tokenizer
    for text in ("abc 1212", "We'll, e\u0301!! !!", "  two\n\n lines \t", "日本12 x=3abc", "I'VE"):
        assert ours.encode(text) == theirs.encode(text), text
    assert vocabulary["Ã©"] in ours.encode("e\u0301")


def test_llama3_takes_a_whole_token_before_merging(tiny_llama, tmp_path):
    merges = {
        "tokenizer__ggml__tokens": [*WORDS[:-1], "bc"],
        "tokenizer__ggml__merges": ["b c", "a b", "ab c"],
    }
    file = tmp_path / "model.gguf"
    assert pieces(tiny_llama, file, "abc", **merges) == ["a", "bc"]
    assert pieces(tiny_llama, file, "abc", tokenizer__ggml__pre="llama-bpe", **merges) == ["abc"]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.model: 'llama'"),
        ({"tokenizer__ggml__pre": "tekken"}, "tokenizer.ggml.pre: 'tekken'"),
        ({}, f"the tokenizer has {len(WORDS)} ids, the model's vocabulary 97"),
    ],
)
def test_unsupported_tokenizers_are_refused_when_asked_for(tiny_llama, tmp_path, metadata, message):
    model = load(write(tmp_path / "model.gguf", tiny_llama(), **metadata))
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = model.tokenizer
