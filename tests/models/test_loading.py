"""What `load` accepts, and what it refuses with the tensor, file and shapes in the message."""

import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from safetensors.numpy import load_file, save_file

from malt_jax.models import llama, load


@pytest.fixture
def directory(tiny_directory, tmp_path) -> Path:
    """A copy of the tiny model to damage."""
    shutil.copytree(tiny_directory, tmp_path / "model")
    return tmp_path / "model"


def rewrite(directory: Path, **changes: np.ndarray | None) -> None:
    """Replaces tensors (dots written as double underscores); None removes one."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for written, array in changes.items():
        name = written.replace("__", ".")
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array
    save_file(tensors, file)


def edit_config(directory: Path, **fields: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refused(directory: Path, *words: str) -> None:
    with pytest.raises(ValueError, match=".*".join(re.escape(word) for word in words)):
        load(directory)


def test_a_missing_tensor_is_named(directory):
    rewrite(directory, model__layers__1__mlp__up_proj__weight=None)
    refused(directory, "model.layers.1.mlp.up_proj.weight", "missing", "model.safetensors")


def test_an_unexpected_tensor_is_named(directory):
    rewrite(directory, model__layers__2__mlp__up_proj__weight=np.ones((48, 32), np.float32))
    refused(directory, "model.layers.2.mlp.up_proj.weight", "unexpected", "model.safetensors")


def test_a_wrong_shape_is_named_with_both_shapes(directory):
    rewrite(directory, model__layers__0__self_attn__k_proj__weight=np.ones((32, 32), np.float32))
    refused(directory, "layers.0.self_attn.k_proj.weight", "(32, 32)", "(16, 32)")


@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        ("qwen3", "llama", ("layers.0.self_attn.k_norm.weight", "3 more", "missing")),
        ("qwen2", "llama", ("layers.0.self_attn.k_proj.bias", "5 more", "missing")),
        ("llama", "qwen2", ("layers.0.self_attn.k_proj.bias", "5 more", "unexpected")),
        ("mistral", "qwen3", ("layers.0.self_attn.k_norm.weight", "3 more", "unexpected")),
    ],
)
def test_weights_of_another_family_are_refused(tiny_llama, tmp_path, config, weights, words):
    tiny_llama(model_type=weights, head_dim=8).save_pretrained(tmp_path)
    edit_config(tmp_path, model_type=config)
    refused(tmp_path, *words)


def test_quantised_tensors_are_refused_before_reading(directory):
    rewrite(directory, model__norm__weight=np.ones(32, np.int8))
    refused(directory, "model.norm.weight", "I8")


def test_rotary_buffers_are_ignored(directory):
    rewrite(directory, model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(4, np.float32))
    load(directory)


def test_a_tied_model_may_carry_its_head_if_it_is_the_same(directory):
    edit_config(directory, tie_word_embeddings=True)
    refused(directory, "lm_head.weight", "tie_word_embeddings")
    embed = load_file(directory / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(directory, lm_head__weight=embed)
    with_head = load(directory).logits([[1, 2, 3]])
    rewrite(directory, lm_head__weight=None)
    np.testing.assert_array_equal(load(directory).logits([[1, 2, 3]]), with_head)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_pickled_weights_are_refused(directory, suffix):
    (directory / "model.safetensors").unlink()
    pickled = directory / f"pytorch_model{suffix}"
    pickled.write_bytes(b"not to be opened")
    refused(directory, pickled.name, "convert them to safetensors")
    refused(pickled, "safetensors")


def test_code_that_comes_with_weights_is_refused(directory):
    edit_config(directory, auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    refused(directory, "config.json", "auto_map", "trust_remote_code")


def test_an_unsupported_field_is_refused_with_its_file(directory):
    edit_config(directory, rope_parameters={"rope_type": "yarn", "factor": 4.0})
    refused(directory, "config.json", "rope_type", "yarn")


@pytest.mark.parametrize("keep", [4, 400, -8])
def test_a_truncated_file_is_refused(directory, keep):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(directory, "model.safetensors", "not a readable safetensors file")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [32], "data_offsets": [0, 1 << 40]},
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [32], "data_offsets": [64, 0]},
    ],
)
def test_a_header_that_lies_is_refused(directory, entry):
    header = json.dumps({"model.norm.weight": entry}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(128)
    (directory / "model.safetensors").write_bytes(content)
    refused(directory, "model.safetensors", "not a readable safetensors file")


def shard(tiny_llama, directory: Path) -> dict[str, str]:
    tiny_llama().save_pretrained(directory, max_shard_size="20KB")
    return json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"]


@pytest.mark.parametrize("length", [1 << 63, 1 << 40, 0])
def test_an_absurd_header_length_is_refused(directory, length):
    file = directory / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    refused(directory, "model.safetensors", "not a readable safetensors file")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(directory, value):
    """They gave noise for completions, hours later."""
    rewrite(directory, model__norm__weight=np.array([1.0] * 31 + [value], np.float32))
    refused(directory, "model.norm.weight", "model.safetensors", "holds NaN or infinity")


def test_more_layers_than_tensors_are_refused_at_once(directory):
    """The list of a billion layers' shapes filled the memory before it was compared."""
    edit_config(directory, num_hidden_layers=10**9)
    refused(directory, "1000000000 layers", "tensors in all")


def test_a_missing_shard_is_named(tiny_llama, tmp_path):
    gone = shard(tiny_llama, tmp_path)["model.norm.weight"]
    (tmp_path / gone).unlink()
    refused(tmp_path, gone, "no such file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ghost": "model-00001-of-{n}.safetensors"}, ("ghost", "promises")),
        ({"model.norm.weight": "../elsewhere.safetensors"}, ("not a plain file name",)),
        ({"model.norm.weight": "model-00001-of-{n}.safetensors"}, ("model.norm.weight", "index")),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(tiny_llama, tmp_path, change, words):
    weight_map = shard(tiny_llama, tmp_path)
    n = next(iter(weight_map.values()))[-17:-12]
    changed = weight_map | {name: file.format(n=n) for name, file in change.items()}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": changed}))
    refused(tmp_path, *words)


def test_every_parameter_asks_where_it_goes(tiny_directory):
    seen = {}

    def placement(path, shape):
        seen[path] = shape
        return SingleDeviceSharding(jax.devices()[0])

    model = load(tiny_directory, jnp.bfloat16, placement=placement)
    shapes = jax.tree.leaves_with_path(llama.param_shapes(model.config, jnp.bfloat16))
    assert seen == {tuple(key.key for key in path): leaf.shape for path, leaf in shapes}
    assert seen["layers", 0, "down", "kernel"] == (32, 48)
    plain = load(tiny_directory, jnp.bfloat16)
    for ours, other in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(plain.params), strict=True
    ):
        np.testing.assert_array_equal(ours, other)


def test_content_hash_is_of_the_weight_files_bytes(tiny_llama, tmp_path):
    shard(tiny_llama, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    expected = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert load(tmp_path).content_hash == f"sha256:{expected}"


@pytest.mark.parametrize(
    ("tokens", "mask", "word"),
    [
        ([1, 2], None, "int32"),
        ([[1.0]], None, "int32"),
        ([[97]], None, "97"),
        ([[-1]], None, "ids"),
        ([[1, 2]], [[True]], "mask"),
    ],
)
def test_wrong_tokens_are_refused(tiny_directory, tokens, mask, word):
    with pytest.raises(ValueError, match=word):
        load(tiny_directory).logits(tokens, mask)


def test_a_path_that_is_nothing_is_refused(tmp_path):
    refused(tmp_path / "absent", "no such file or directory")
    refused(tmp_path, "no config.json")


def test_a_hub_id_without_a_network_says_so():
    with pytest.raises(ValueError, match=r"malt-jax-tests/absent.*hub.*network"):
        load("malt-jax-tests/absent")


MEMORY = """
import resource, sys
from malt_jax.models import llama, load
import jax
load(sys.argv[1])  # compiles and imports what loading needs, on a tiny model
def mebibytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = mebibytes()
model = load(sys.argv[2])
print(sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) / 2**20, mebibytes() - before)
"""


def test_memory_stays_near_the_model_and_its_largest_tensor(tiny_llama, tiny_directory, tmp_path):
    """Half the model is room for a few tensors of 8 MiB and the allocator; a second copy is not."""
    wide = {"vocab_size": 2048, "hidden_size": 1024, "intermediate_size": 2048}
    tiny_llama(**wide, num_hidden_layers=5).save_pretrained(tmp_path, max_shard_size="60MB")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tiny_directory), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    model, growth = map(float, done.stdout.split())
    assert 190 < model < 200
    assert growth < 1.5 * model
