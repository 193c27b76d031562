"""A base from a GGUF file: what other programs need to put the adapters on it."""

import json

import numpy as np
import pytest
from exports import TOKENS, drawn, logits, recipe, theirs
from gguf_files import WORDS, write

from malt_jax import export, models

SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).eval()
    return write(tmp_path_factory.mktemp("gguf") / "model.gguf", model)


@pytest.fixture(scope="module")
def from_gguf(file):
    return models.load(file)


def test_merge_writes_the_bare_base_too_and_adapters_load_onto_it(file, from_gguf, tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    parsed, adapter = recipe(file), drawn(from_gguf)
    export.write(tmp_path, parsed, from_gguf, "verifier", adapter)
    export.merge(tmp_path, parsed, from_gguf)
    base, role = tmp_path / "export" / "base", tmp_path / "export" / "verifier"
    np.testing.assert_allclose(theirs(base), logits(from_gguf, None), atol=1e-4, rtol=0)
    once = logits(from_gguf, adapter)
    np.testing.assert_allclose(theirs(base, role), once, atol=1e-4, rtol=0)
    for_llama_cpp = models.load(tmp_path / "export" / "gguf" / "verifier" / "model.gguf")
    np.testing.assert_allclose(logits(for_llama_cpp, None), once, atol=1e-4, rtol=0)
    automatic = peft.AutoPeftModelForCausalLM.from_pretrained(role, dtype=torch.float32).eval()
    with torch.no_grad():
        automatic = automatic(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(automatic, once, atol=1e-4, rtol=0)
    assert models.load(base).tokenizer.stop_ids == from_gguf.tokenizer.stop_ids
    assert "`--stage=merge` writes it as `export/base`" in (role / "README.md").read_text()
    assert "adapters of the roles go on this directory" in (base / "README.md").read_text()


def test_the_bare_base_is_written_once(file, from_gguf, tmp_path):
    parsed, written = recipe(file), tmp_path / "export" / "base" / "model.safetensors"
    export.write(tmp_path, parsed, from_gguf, "verifier", drawn(from_gguf))
    export.merge(tmp_path, parsed, from_gguf)
    stamp = written.stat().st_mtime_ns
    export.write(tmp_path, parsed, from_gguf, "verifier", drawn(from_gguf, seed=5))
    export.merge(tmp_path, parsed, from_gguf)
    assert written.stat().st_mtime_ns == stamp


def test_a_merge_of_an_earlier_version_is_written_anew(base, model, tmp_path):
    """Its config lacked rope_theta."""
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    export.merge(tmp_path, recipe(base), model)
    merged = tmp_path / "export" / "merged" / "verifier"
    assert not (tmp_path / "export" / "base").exists()
    record = json.loads((merged / "malt.json").read_text())
    del record["layout"]
    (merged / "malt.json").write_text(json.dumps(record))
    (merged / "config.json").unlink()
    export.merge(tmp_path, recipe(base), model)
    assert json.loads((merged / "config.json").read_text())["rope_theta"] == 10_000.0


def test_a_local_base_is_named_by_its_absolute_path(base, tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    monkeypatch.chdir(base.parent)
    near = models.load(base.name)
    export.write(tmp_path, recipe(base), near, "verifier", drawn(near))
    fields = json.loads((tmp_path / "export/verifier/adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(base)
    monkeypatch.chdir(tmp_path)
    peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "export" / "verifier")
