"""Weights from strangers with any bytes where their headers stand: read, or refused by their
name."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from malt_jax.models import load

WORDS = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc", "12"]
SHAPES = {
    "token_embd": (len(WORDS), 32),
    "output_norm": (32,),
    "blk.0.attn_norm": (32,),
    "blk.0.ffn_norm": (32,),
    "blk.0.attn_q": (32, 32),
    "blk.0.attn_k": (16, 32),
    "blk.0.attn_v": (16, 32),
    "blk.0.attn_output": (32, 32),
    "blk.0.ffn_gate": (48, 32),
    "blk.0.ffn_up": (48, 32),
    "blk.0.ffn_down": (32, 48),
}
SIZES = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 48,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 8,
}
BYTES = st.binary(min_size=1, max_size=8)
BYTES |= st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\xff" * 4, b"\0\0\0\x80", b"\0" * 7 + b"\x40"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A GGUF file that loads. What is metadata stands before the first kibibytes of its weights."""
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for name, size in SIZES.items():
        writer.add_uint32(f"llama.{name}", size)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32("llama.rope.freq_base", 10_000.0)
    for name, text in (("model", "gpt2"), ("pre", "gpt-2")):
        writer.add_string(f"tokenizer.ggml.{name}", text)
    writer.add_array("tokenizer.ggml.merges", ["a b", "ab c", "1 2"])
    writer.add_array("tokenizer.ggml.tokens", WORDS)
    writer.add_array("tokenizer.ggml.token_type", [3] + [1] * (len(WORDS) - 1))
    writer.add_uint32("tokenizer.ggml.eos_token_id", 0)
    for name, shape in SHAPES.items():
        writer.add_tensor(f"{name}.weight", np.full(shape, 0.5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert load(file).tokenizer.encode("abc")
    return file.read_bytes()


def changed(content: bytes, changes: list[tuple[float, bytes]], end: float, kept: float) -> bytes:
    """Bytes replaced at places in the first `end` bytes, and the file cut to a share of itself."""
    damaged = bytearray(content)
    for place, new in changes:
        at = int(place * end)
        damaged[at : at + len(new)] = new
    return bytes(damaged[: int(len(damaged) * kept)])


def loads_or_is_refused(path: Path, *names: str) -> None:
    said = names[0]
    try:
        _ = load(path).tokenizer.encode("abc 12")
    except ValueError as error:
        said = str(error)
    assert any(name in said for name in names), said


PLACES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), BYTES), min_size=1, max_size=3)
KEPT = st.just(1.0) | st.floats(0, 1)


@settings(max_examples=150)
@given(PLACES, KEPT)
def test_any_gguf_header(written: bytes, tmp_path_factory, changes, kept: float):
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    header = written.index(np.full(16, 0.5, np.float32).tobytes())
    path.write_bytes(changed(written, changes, header, kept))
    loads_or_is_refused(path, "fuzzed.gguf")


def test_more_layers_than_tensors_is_refused_by_the_file(written: bytes, tmp_path: Path):
    """Among a thousand random changes this one came up late: the message named no file."""
    path = tmp_path / "deep.gguf"
    count = b"llama.block_count" + (4).to_bytes(4, "little") + (1).to_bytes(4, "little")
    assert written.count(count) == 1
    path.write_bytes(written.replace(count, count[:-4] + (12).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"12 layers.*deep\.gguf"):
        load(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save(tmp_path_factory.mktemp("whole"))


@settings(max_examples=100)
@given(PLACES, KEPT)
def test_any_safetensors_header(directory: Path, tmp_path_factory, changes, kept: float):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.copytree(directory, path, dirs_exist_ok=True)
    content = (directory / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    (path / "model.safetensors").write_bytes(changed(content, changes, header, kept))
    loads_or_is_refused(path, "model.safetensors")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([2**31, -(2**63), 10**30]),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(
        st.sampled_from(["rope_type", "rope_theta", "factor"]), st.floats(), max_size=2
    ),
)


@settings(max_examples=150)
@given(st.data())
def test_any_field_of_a_config(directory: Path, tmp_path_factory, data: st.DataObject):
    path = tmp_path_factory.getbasetemp() / "configured"
    shutil.copytree(directory, path, dirs_exist_ok=True)
    fields = json.loads((directory / "config.json").read_text())
    names = st.sampled_from(sorted(fields))
    fields |= data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=2))
    (path / "config.json").write_text(json.dumps(fields))
    loads_or_is_refused(path, "config", "model.safetensors")
