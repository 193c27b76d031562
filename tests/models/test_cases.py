"""Models of strangers, read as transformers reads them: the handed ones, and others of their
kinds."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from peers import PEERS, logits_of
from safetensors.numpy import load_file, save_file

from malt_jax.models import gguf, hf, load
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.models.merged import save_merged

TOKENS = np.random.default_rng(0).integers(0, 97, (2, 100))
ROPES = [
    Rope(500_000.0),
    Rope(20_000.0, "linear", 4.0),
    Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 64),
]


@pytest.fixture(scope="session")
def models_of(cases):
    return cases / "models"


@pytest.mark.parametrize("case", ["stale_index", "llama3_original_at_top_level"])
@pytest.mark.parametrize("peer", PEERS)
def test_the_handed_models_give_the_logits_of_transformers(models_of, case, peer):
    if case == "llama3_original_at_top_level" and peer == "transformers 4":
        pytest.skip("transformers 4 looks for the original context beside the other RoPE fields")
    reference = logits_of(peer, models_of / case, TOKENS)
    ours = load(models_of / case).logits(TOKENS)
    np.testing.assert_allclose(ours, reference, atol=1e-4, rtol=0)


def test_the_original_context_stands_at_the_top_level(models_of):
    config = load(models_of / "llama3_original_at_top_level").config
    assert config.rope.original_context == 64


def test_the_top_level_goes_before_the_rope_fields():
    fields = LlamaConfig(97, 32, 48, 2, 4, 2, 8, 256, 1e-5, ROPES[2]).to_hf()
    assert LlamaConfig.from_hf(fields).rope == ROPES[2]
    changed = fields | {"original_max_position_embeddings": 32}
    assert LlamaConfig.from_hf(changed).rope.original_context == 32
    del changed["original_max_position_embeddings"]
    for group in ("rope_parameters", "rope_scaling"):
        changed[group] = {
            k: v for k, v in fields[group].items() if k != "original_max_position_embeddings"
        }
    assert LlamaConfig.from_hf(changed).rope.original_context == 256


@pytest.mark.parametrize("peer", PEERS)
def test_the_handed_merged_model_is_written_for_every_reader(models_of, tmp_path, peer):
    source = models_of / "merged_config_rope_v4"
    model = load(source)
    save_merged(tmp_path, model.config, model.params, None)
    tokens = np.load(source / "ids.npy")
    tokens = tokens.reshape(-1, tokens.shape[-1])
    reference = logits_of(peer, tmp_path, tokens)
    np.testing.assert_allclose(model.logits(tokens), reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope.kind)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_is_written_means_the_same_to_every_reader(tiny_llama, tmp_path, family, rope, peer):
    fields = {"rope_type": rope.kind, "rope_theta": rope.theta, "factor": rope.factor}
    if rope.kind == "llama3":
        fields |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        fields |= {"original_max_position_embeddings": 64}
    if rope.kind == "default":
        del fields["factor"]
    made = tiny_llama(family, rope_parameters=fields, sliding_window=None, head_dim=8)
    made.save_pretrained(tmp_path / "theirs")
    model = load(tmp_path / "theirs")
    assert model.config.rope == rope
    save_merged(tmp_path / "ours", model.config, model.params, None)
    reference = logits_of(peer, tmp_path / "ours", TOKENS)
    np.testing.assert_allclose(model.logits(TOKENS), reference, atol=1e-4, rtol=0)
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["rope_theta"] == rope.theta
    assert (written["rope_scaling"] or {"rope_type": "default"})["rope_type"] == rope.kind


@pytest.mark.parametrize("promised", ["model-00001-of-00002.safetensors", "model.safetensors"])
def test_a_whole_file_goes_before_an_old_index(tiny_directory, tmp_path, promised):
    shutil.copytree(tiny_directory, tmp_path / "model")
    index = {"weight_map": {"model.norm.weight": promised}}
    (tmp_path / "model" / hf.INDEX).write_text(json.dumps(index))
    np.testing.assert_array_equal(
        load(tmp_path / "model").logits(TOKENS), load(tiny_directory).logits(TOKENS)
    )


def test_a_stale_shard_beside_a_whole_file_is_not_read(tiny_directory, tmp_path):
    shutil.copytree(tiny_directory, tmp_path / "model")
    shard = "model-00001-of-00001.safetensors"
    tensors = load_file(tmp_path / "model" / hf.SINGLE)
    save_file({name: array * 2 for name, array in tensors.items()}, tmp_path / "model" / shard)
    index = {"weight_map": dict.fromkeys(tensors, shard)}
    (tmp_path / "model" / hf.INDEX).write_text(json.dumps(index))
    np.testing.assert_array_equal(
        load(tmp_path / "model").logits(TOKENS), load(tiny_directory).logits(TOKENS)
    )


@pytest.mark.parametrize(
    ("case", "stops", "split"),
    [("gguf_eot_eom_ids", (0, 5, 8), None), ("gguf_qwen2_without_pre", (0,), "qwen2")],
)
def test_the_handed_gguf_files(cases, case, stops, split):
    tokenizer = gguf.tokenizer(gguf.open_file(cases / "gguf" / f"{case}.gguf"))
    assert tokenizer.stop_ids == stops
    if split:
        pieces = tokenizer.fast.pre_tokenizer.pre_tokenize_str("It's 123\n\nx")
        assert [piece for piece, _ in pieces] == ["It", "'s", "Ġ", "1", "2", "3", "ĊĊ", "x"]


def test_the_handed_stop_ids_of_a_config(models_of, tmp_path):
    small.tokenizer().save(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    shutil.copy(models_of / "eos_list_in_config_json_only" / "config.json", tmp_path)
    assert {0, 2, 5} <= set(type(small.tokenizer()).from_directory(tmp_path).stop_ids)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", hf.INDEX])
def test_a_fifo_is_not_waited_for(tiny_directory, tmp_path, name):
    shutil.copytree(tiny_directory, tmp_path / "model")
    if name == hf.INDEX:
        (tmp_path / "model" / hf.SINGLE).unlink()
    (tmp_path / "model" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "model" / name)
    with pytest.raises(ValueError, match=f"{name}: not a regular file"):
        load(tmp_path / "model")
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match=r"model.gguf: not a regular file"):
        load(tmp_path / "model.gguf")


def test_a_tensor_that_a_header_lists_twice_is_refused(tiny_directory, tmp_path: Path):
    shutil.copytree(tiny_directory, tmp_path / "model")
    file = tmp_path / "model" / hf.SINGLE
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size :]
    entry = json.dumps({"model.norm.weight": json.loads(header)["model.norm.weight"]})
    header = entry.encode()[:-1] + b"," + header[1:]
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)
    with pytest.raises(ValueError, match=r"model.safetensors: .*'model.norm.weight' stands twice"):
        load(tmp_path / "model")
