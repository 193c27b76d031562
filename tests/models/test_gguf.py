"""GGUF: config, weights and tokenizer of one file, held to the model it was written from."""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import transformers
from gguf_files import WORDS, write

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
TOKENS = np.random.default_rng(0).integers(0, 97, (2, 9))


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
    loaded = load(write(tmp_path / "model.gguf", model))
    assert loaded.config.family == model.config.model_type
    assert loaded.config.rope.kind == model.config.rope_parameters["rope_type"]
    np.testing.assert_allclose(loaded.logits(TOKENS), reference(model), atol=1e-4, rtol=0)


def test_linear_rope_scaling_is_read(tiny_llama, tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
    model = tiny_llama(rope_parameters=rope)
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    loaded = load(write(tmp_path / "model.gguf", model, **scaling))
    np.testing.assert_allclose(loaded.logits(TOKENS), reference(model), atol=1e-4, rtol=0)


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
    loaded = load(tmp_path)
    assert loaded.source.endswith("model.gguf")
    np.testing.assert_allclose(loaded.logits(TOKENS), reference(theirs), atol=1e-4, rtol=0)
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


def control(names: dict[str, int]) -> dict[str, object]:
    """Metadata of a vocabulary in which these control tokens stand at these ids."""
    tokens, types = list(WORDS), [3] + [1] * (len(WORDS) - 1)
    for name, i in names.items():
        tokens.append(tokens[i])
        tokens[i], types[i] = name, 3
    types += [1] * (len(tokens) - len(types))
    return {"tokenizer__ggml__tokens": tokens, "tokenizer__ggml__token_type": types}


@pytest.mark.parametrize(
    ("family", "ids", "stops"),
    [
        ("llama", {}, (0,)),
        ("llama", {"eot": 5}, (0, 5)),
        ("llama", {"eom": 9}, (0, 9)),
        ("llama", {"eot": 5, "eom": 9, "padding": 6}, (0, 5, 9)),
        ("qwen2", {"eot": 5}, (0, 5, 7)),
        ("qwen3", {}, (0, 7)),
    ],
)
def test_a_turn_ends_where_the_metadata_and_the_family_say(
    tiny_llama, tmp_path, family, ids, stops
):
    """Qwen's <|endoftext|> is in no field of the metadata."""
    metadata = control({"<|eot|>": 5, "<|eom|>": 9, "<|endoftext|>": 7})
    size = len(metadata["tokenizer__ggml__tokens"])
    metadata |= {f"tokenizer__ggml__{name}_token_id": i for name, i in ids.items()}
    model = tiny_llama(model_type=family, vocab_size=size, head_dim=8)
    assert load(write(tmp_path / "model.gguf", model, **metadata)).tokenizer.stop_ids == stops


def test_an_end_of_turn_outside_the_vocabulary_is_refused(tiny_llama, tmp_path):
    model = tiny_llama(vocab_size=len(WORDS))
    file = write(tmp_path / "model.gguf", model, tokenizer__ggml__eot_token_id=9999)
    with pytest.raises(ValueError, match=r"model.gguf: tokenizer.ggml: eot 9999"):
        _ = load(file).tokenizer


def test_without_a_named_split_qwen_has_its_own_and_others_are_warned_of(
    tiny_llama, tmp_path, caplog
):
    def split(family: str) -> list[str]:
        file = tmp_path / f"{family}.gguf"
        model = tiny_llama(model_type=family, vocab_size=len(WORDS), head_dim=8)
        with pytest.MonkeyPatch.context() as patch:
            add = gguf.GGUFWriter.add_string
            patch.setattr(
                gguf.GGUFWriter,
                "add_string",
                lambda self, key, value: key.endswith("ggml.pre") or add(self, key, value),
            )
            tokenizer = load(write(file, model)).tokenizer
        return [tokenizer.fast.id_to_token(i) for i in tokenizer.encode("abc 1212")]

    for family in ("qwen2", "qwen3"):
        assert split(family) == ["abc", "Ġ", "1", "2", "1", "2"]
    assert "tokenizer.ggml.pre is missing" not in caplog.text
    assert split("llama") == ["abc", "Ġ", "12", "12"]
    assert "llama.gguf: tokenizer.ggml.pre is missing" in caplog.text
