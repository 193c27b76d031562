"""What leaves the house, and what comes in: adapters with their cards, merged weights."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exports import PEFTS_SHAPE, TOKENS, drawn, logits, made_elsewhere, recipe, theirs
from recipes import change, good
from safetensors.numpy import load_file

from malt_jax import export, models
from malt_jax.export import card
from malt_jax.models.identity import tokenizer_hash
from malt_jax.recipe import parse


def results(workdir: Path, accuracy: float = 0.5) -> None:
    score = {"n": 8, "accuracy": accuracy, "ci95": [0.2, 0.8]}
    content = {
        "split": {"n": 8},
        "k": 3,
        "systems": {"malt_mv": score},
        "paired": [],
        "seconds": 1.0,
    }
    (workdir / "eval").mkdir(exist_ok=True)
    (workdir / "eval" / "results.json").write_text(json.dumps(content))


def test_peft_loads_an_export_onto_the_base_it_names(base, model, tmp_path):
    adapter = drawn(model)
    export.write(tmp_path, recipe(base), model, "verifier", adapter)
    directory = tmp_path / "export" / "verifier"
    fields = json.loads((directory / "adapter_config.json").read_text())
    reference = theirs(fields["base_model_name_or_path"], directory)
    np.testing.assert_allclose(logits(model, adapter), reference, atol=1e-4, rtol=0)
    assert np.abs(reference - theirs(base)).max() > 0.1
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["verifier"]


def test_files_get_the_mode_the_umask_gives(base, model, tmp_path):
    """Safetensors' own writer made the weights readable by their owner alone."""
    before = os.umask(0o022)
    try:
        export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
        export.merge(tmp_path, recipe(base), model)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "export").rglob("*") if path.is_file()]
    assert {"adapter_model.safetensors", "model.safetensors"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_the_record_says_what_the_adapter_belongs_to(base, model, tmp_path):
    (tmp_path / "datasets").mkdir()
    counts = {"nodes": 54, "positives": 20, "sft_rows": 18, "pairs": 9}
    (tmp_path / "datasets" / "yield.json").write_text(json.dumps({"verifier": counts}))
    (tmp_path / "data.json").write_text(json.dumps({"train": {"kept": 6}}))
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    record = json.loads((tmp_path / "export" / "verifier" / "malt.json").read_text())
    assert record["base_hash"] == model.content_hash
    assert record["tokenizer_hash"] == tokenizer_hash(model.tokenizer)
    assert record["settings"]["sft"]["learning_rate"] == 4e-3
    assert record["versions"]["jax"] == jax.__version__
    assert record["data"] == {"questions": 6, "yield": counts}
    assert record["results"] is None
    text = (tmp_path / "export" / "verifier" / "README.md").read_text()
    assert "6 training questions. Of 54 samples of this role 20 have" in text
    assert "18 rows for SFT, 9 pairs for DPO" in text
    assert "Check: {question}\n{generator}" in text
    assert "learning_rate 0.004" in text
    assert "Not evaluated yet" in text


def test_the_card_has_front_matter_that_the_hub_reads(base, model, tmp_path):
    """base_model is a hub id or absent: the hub refuses a card that names a local path there."""
    hub = pytest.importorskip("huggingface_hub")
    (base / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\nlicense: mit\n")
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    directory = tmp_path / "export" / "verifier"
    data = hub.ModelCard.load(directory / "README.md").data
    assert data.base_model is None
    assert data.license == "apache-2.0"
    assert data.library_name == "peft"
    assert data.tags == ["malt", "verifier", "lora"]
    (base / "README.md").unlink()
    elsewhere = replace(model, source="meta-llama/Llama-3.1-8B-Instruct")
    export.write(tmp_path, recipe(base), elsewhere, "verifier", drawn(model))
    data = hub.ModelCard.load(directory / "README.md").data
    assert data.base_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert data.license == "other"


def test_a_prompt_with_backticks_stays_in_its_fence(base, model, tmp_path):
    prompt = "Solve {question}\n```python\n1\n````\nX is {hint}."
    parsed = recipe(base, roles__generator__prompt=prompt)
    export.write(tmp_path, parsed, model, "generator", drawn(model))
    text = (tmp_path / "export" / "generator" / "README.md").read_text()
    assert f"`````text\n{prompt}\n`````" in text
    assert "`{hint}` is: a number." in text


def test_what_a_phase_left_claims_no_more_than_that(base, model, tmp_path):
    """Its card named DPO, and would have shown the accuracy of the team that DPO had made."""
    parsed = recipe(base, roles__verifier__train=("sft", "dpo"))
    (tmp_path / "eval").mkdir()
    results(tmp_path)
    export.write(tmp_path, parsed, model, "verifier", drawn(model), "sft")
    assert not export.exists(tmp_path, "verifier")
    text = (tmp_path / "export" / "sft" / "verifier" / "README.md").read_text()
    assert "- sft: " in text
    assert "- dpo: " not in text
    assert "Not evaluated yet" in text
    export.load(tmp_path / "export" / "sft" / "verifier", model, "verifier")


def test_a_control_says_so(base, model, tmp_path):
    parsed = recipe(base, credit__shuffle_rewards=True)
    export.write(tmp_path, parsed, model, "generator", drawn(model))
    assert "negative control" in (tmp_path / "export" / "generator" / "README.md").read_text()


def test_results_reach_the_card_and_the_same_results_write_nothing(base, model, tmp_path):
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    results(tmp_path)
    export.refresh(tmp_path, recipe(base))
    directory = tmp_path / "export" / "verifier"
    assert "| `malt_mv` | 50.0% | 20.0 to 80.0 |" in (directory / "README.md").read_text()
    assert json.loads((directory / "malt.json").read_text())["results"]["k"] == 3
    stamps = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    export.refresh(tmp_path, recipe(base))
    assert stamps == {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    results(tmp_path, accuracy=0.75)
    export.refresh(tmp_path, recipe(base))
    assert "75.0%" in (directory / "README.md").read_text()


def test_a_card_follows_from_its_record_alone(base, model, tmp_path):
    export.write(tmp_path, recipe(base), model, "refiner", drawn(model))
    directory = tmp_path / "export" / "refiner"
    record = json.loads((directory / "malt.json").read_text())
    assert card.text(record) == (directory / "README.md").read_text()


def test_merged_weights_are_the_base_with_the_adapter(base, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    adapter = drawn(model)
    export.write(tmp_path, recipe(base), model, "verifier", adapter)
    export.merge(tmp_path, recipe(base), model)
    merged = tmp_path / "export" / "merged" / "verifier"
    np.testing.assert_allclose(theirs(merged), logits(model, adapter), atol=1e-4, rtol=0)
    np.testing.assert_allclose(
        models.load(merged).logits(TOKENS), logits(model, adapter), atol=1e-4, rtol=0
    )
    ids = transformers.AutoTokenizer.from_pretrained(merged).apply_chat_template(
        [{"role": "user", "content": "What is 1+2"}], add_generation_prompt=True
    )["input_ids"]
    assert ids == model.tokenizer.prompt("{question}", {"question": "What is 1+2"})
    assert (merged / "README.md").read_text().startswith('---\nlibrary_name: "transformers"')
    assert tokenizer_hash(models.load(merged).tokenizer) == tokenizer_hash(model.tokenizer)


def test_a_half_precision_base_is_merged_in_float32_and_kept_in_its_own_dtype(
    base, model, tmp_path
):
    half, adapter = models.load(base, jnp.bfloat16), drawn(model)
    parsed = recipe(base, model__dtype="bfloat16")
    export.write(tmp_path, parsed, half, "verifier", adapter)
    export.merge(tmp_path, parsed, half)
    stored = load_file(tmp_path / "export" / "merged" / "verifier" / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {jnp.dtype(jnp.bfloat16)}
    pair, kernel = adapter.layers[1]["down"], half.params["layers"][1]["down"]["kernel"]
    exact = kernel.astype(jnp.float32) + adapter.scale * (pair["a"] @ pair["b"]).T
    np.testing.assert_array_equal(
        stored["model.layers.1.mlp.down_proj.weight"], exact.astype(jnp.bfloat16)
    )
    fields = json.loads((tmp_path / "export/merged/verifier/config.json").read_text())
    assert fields["dtype"] == "bfloat16"


def test_merging_again_follows_the_adapter(base, model, tmp_path):
    """The same adapter is not merged twice, and another one is not hidden by the old merge."""
    parsed, merged = recipe(base), tmp_path / "export" / "merged" / "verifier"
    with pytest.raises(ValueError, match=r"no adapters; run --stage=train first"):
        export.merge(tmp_path, parsed, model)
    export.write(tmp_path, parsed, model, "verifier", drawn(model))
    export.merge(tmp_path, parsed, model)
    stamp = (merged / "model.safetensors").stat().st_mtime_ns
    for_llama_cpp = tmp_path / "export" / "gguf" / "verifier" / "adapter.gguf"
    written = for_llama_cpp.read_bytes()
    results(tmp_path)
    export.refresh(tmp_path, parsed)
    export.merge(tmp_path, parsed, model)
    assert (merged / "model.safetensors").stat().st_mtime_ns == stamp
    assert for_llama_cpp.read_bytes() == written
    assert "50.0%" in (merged / "README.md").read_text()
    export.write(tmp_path, parsed, model, "verifier", drawn(model, seed=5))
    export.merge(tmp_path, parsed, model)
    assert for_llama_cpp.read_bytes() != written
    expected = logits(model, drawn(model, seed=5))
    np.testing.assert_allclose(models.load(merged).logits(TOKENS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_made_by_peft_is_where_training_starts(base, model, tmp_path, dtype):
    reference = made_elsewhere(base, tmp_path, dtype)
    parsed = recipe(base, roles__refiner__adapter=str(tmp_path), **PEFTS_SHAPE)
    adapter = export.starting_adapter(parsed, model, "refiner")
    np.testing.assert_allclose(logits(model, adapter), reference, atol=1e-4, rtol=0)
    assert np.abs(reference - theirs(base)).max() > 0.1
    assert export.starting_adapter(parsed, model, "verifier") is None
    export.write(tmp_path / "run", parsed, model, "refiner", adapter)
    record = json.loads((tmp_path / "run" / "export" / "refiner" / "malt.json").read_text())
    assert record["started_from"]["path"] == str(tmp_path)
    assert re.fullmatch("sha256:[0-9a-f]{64}", record["started_from"]["hash"])


@pytest.mark.parametrize(
    ("changes", "in_file", "in_config"),
    [
        ({"lora__rank": 4}, "rank 5", "rank 4"),
        ({"lora__alpha": 8.0}, "alpha 7", "alpha 8"),
        ({"lora__targets": ("q", "k")}, r"targets \('q', 'up'\)", r"targets \('q', 'k'\)"),
    ],
)
def test_another_shape_than_configs_is_refused_with_both(
    base, model, tmp_path, changes, in_file, in_config
):
    made_elsewhere(base, tmp_path)
    changes = PEFTS_SHAPE | changes
    parsed = recipe(base, roles__refiner__adapter=str(tmp_path), **changes)
    message = rf"config.roles.refiner.adapter: .* has .*{in_file}.*; config.lora has .*{in_config}"
    with pytest.raises(ValueError, match=message):
        export.starting_adapter(parsed, model, "refiner")


def test_an_adapter_of_some_layers_is_no_start(base, model, tmp_path):
    made_elsewhere(base, tmp_path, layers_to_transform=[1])
    parsed = recipe(base, roles__refiner__adapter=str(tmp_path), **PEFTS_SHAPE)
    with pytest.raises(ValueError, match="only some layers"):
        export.starting_adapter(parsed, model, "refiner")


def test_a_missing_adapter_is_named(base, model, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: no such directory"):
        export.load(tmp_path / "nowhere", model, "refiner")


@pytest.mark.parametrize("name", ["base", "gguf", "merged", "sft"])
def test_the_name_of_a_folder_beside_the_roles_is_no_role(base, name):
    config = change(good(), "model.path", str(base))
    config["roles"][name] = config["roles"]["verifier"]
    with pytest.raises(ValueError, match=rf"config.roles.{name}: a folder of export/"):
        parse(config)


def test_an_adapter_in_another_roles_place_is_refused_unless_it_is_shared(base, model, tmp_path):
    """Shapes fit, so that a folder copied over another was evaluated in silence."""
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    moved = tmp_path / "export" / "refiner"
    (tmp_path / "export" / "verifier").rename(moved)
    words = r"refiner: the adapter of 'verifier', in the place of the adapter of 'refiner'"
    with pytest.raises(ValueError, match=words) as refused:
        export.load(moved, model, "refiner")
    assert f'add "shared_by": ["refiner"] to {moved / "malt.json"}' in str(refused.value)
    settings = recipe(base, roles__refiner__adapter=str(moved))
    with pytest.raises(ValueError, match=words):
        export.starting_adapter(settings, model, "refiner")
    record = json.loads((moved / "malt.json").read_text())
    (moved / "malt.json").write_text(json.dumps(record | {"shared_by": ["refiner"]}))
    export.load(moved, model, "refiner")


def test_a_warm_start_is_for_the_whole_chain(base, model, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "yield.json").write_text("{}")
    export.write(tmp_path, recipe(base), model, "refiner", drawn(model))
    export.load(tmp_path / "export" / "refiner", model, "generator")
