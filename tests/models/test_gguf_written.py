"""What is written for llama.cpp, read back by the format's own library and by `models.load`."""

from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters import filled
from gguf_files import WORDS, write

from malt_jax.models import Model, gguf_written, load, lora
from malt_jax.models.identity import identity

pytest.importorskip("torch")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FIELDS = [
    {},
    {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    {"rope_parameters": LLAMA3, "head_dim": 32},
    {"model_type": "qwen2"},
    {"model_type": "qwen3", "head_dim": 12, "tie_word_embeddings": True},
]


def merged(model: Model, adapter, file: Path) -> Path:
    source = gguf.GGUFReader(model.files[0])
    gguf_written.save_merged(file, source, model.config, model.params, adapter)
    return file


@pytest.mark.parametrize("fields", FIELDS)
def test_a_merged_file_is_the_base_with_the_adapter(tiny_llama, tmp_path, fields):
    model = load(write(tmp_path / "base.gguf", tiny_llama(vocab_size=len(WORDS), **fields)))
    adapter = filled(model.config, seed=1)
    again = load(merged(model, adapter, tmp_path / "merged.gguf"))
    expected = lora.merge(model.params, adapter)
    assert jax.tree.structure(again.params) == jax.tree.structure(expected)
    for ours, theirs in zip(*map(jax.tree.leaves, (expected, again.params)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert again.config == model.config
    for name in ("tokenizer_hash", "base_facts"):
        assert identity(again)[name] == identity(model)[name]


@pytest.mark.parametrize("fields", FIELDS[1:4:2])
def test_an_adapter_on_its_base_is_the_merged_file(tiny_llama, tmp_path, fields):
    """As llama.cpp computes it, in the order of rows that the files have: W + alpha / r B A."""
    model = load(write(tmp_path / "base.gguf", tiny_llama(vocab_size=len(WORDS), **fields)))
    adapter = filled(model.config, seed=2, rank=3, alpha=5.0)
    gguf_written.save_adapter(tmp_path / "adapter.gguf", model.config, adapter)
    read = gguf.GGUFReader(tmp_path / "adapter.gguf")
    contents = {key: read.get_field(key).contents() for key in ("general.type", "adapter.type")}
    assert contents == {"general.type": "adapter", "adapter.type": "lora"}
    assert read.get_field("general.architecture").contents() == model.config.family
    alpha = read.get_field("adapter.lora.alpha").contents()
    base = {t.name: t.data for t in gguf.GGUFReader(model.files[0]).tensors}
    whole = {
        t.name: t.data
        for t in gguf.GGUFReader(merged(model, adapter, tmp_path / "merged.gguf")).tensors
    }
    pairs = {t.name: t.data for t in read.tensors}
    names = {name.removesuffix(".lora_a") for name in pairs if name.endswith(".lora_a")}
    assert len(names) == 7 * model.config.num_layers
    assert base.keys() == whole.keys()
    for name, weight in base.items():
        expected = weight
        if name in names:
            a, b = pairs[f"{name}.lora_a"], pairs[f"{name}.lora_b"]
            expected = weight + alpha / len(a) * (b @ a)
        np.testing.assert_allclose(whole[name], expected, atol=1e-5)


def test_half_precision_stays_half_and_vectors_are_float32(tiny_llama, tmp_path):
    stored = load(write(tmp_path / "base.gguf", tiny_llama(vocab_size=len(WORDS))))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), stored.params)
    model = Model(stored.config, params, stored.source, stored.files, lambda: stored.tokenizer)
    file = merged(model, None, tmp_path / "half.gguf")
    kinds = {(t.tensor_type.name, len(t.shape)) for t in gguf.GGUFReader(file).tensors}
    assert kinds == {("BF16", 2), ("F32", 1)}
    again = load(file)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(np.asarray(before, np.float32), np.asarray(after))
