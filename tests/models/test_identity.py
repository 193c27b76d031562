"""Adapters and checkpoints belong to one base and one tokenizer, and say so."""

import json

import pytest
import small
from exports import another_base, another_tokenizer, drawn, recipe

from malt_jax import export, models
from malt_jax.models.identity import check_identity, identity, tokenizer_hash
from malt_jax.runtime import hosts


def test_an_export_for_another_base_or_tokenizer_is_refused(base, model, tmp_path):
    """Shapes fit, so that nothing but the record shows it."""
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    directory = tmp_path / "export" / "verifier"
    export.load(directory, model, "verifier")
    for other, part in (
        (another_base(tmp_path / "base"), "base model"),
        (another_tokenizer(base, tmp_path / "tokenizer"), "tokenizer"),
    ):
        message = rf"export/verifier: made for another {part}: {base} \(sha256:\w+\.\.\.\) there, "
        with pytest.raises(ValueError, match=message) as caught:
            export.load(directory, other, "verifier")
        assert other.source in str(caught.value)
        assert "config.model.path" in str(caught.value)


def test_a_copy_of_the_base_is_the_base(base, model, tmp_path):
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    here, elsewhere = identity(model), identity(models.load(tmp_path))
    assert here.pop("base") != elsewhere.pop("base")
    assert here == elsewhere


def test_a_record_that_says_nothing_of_a_base_is_in_order(model, tmp_path):
    check_identity(tmp_path / "malt.json", model)
    (tmp_path / "malt.json").write_text(json.dumps({"base_hash": ""}))
    check_identity(tmp_path / "malt.json", model)


def test_a_tokenizers_hash_is_of_its_ids_and_its_control_tokens():
    first = tokenizer_hash(small.tokenizer())
    assert first == tokenizer_hash(small.tokenizer.__wrapped__())
    more = small.tokenizer.__wrapped__()
    more.fast.add_special_tokens(["a"])
    assert tokenizer_hash(more) != first


def changed(base, directory, name: str, **fields: object):
    """A copy of the base with other fields in one of its JSON files."""
    for file in base.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    file = directory / name
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return models.load(directory)


@pytest.mark.parametrize(
    ("name", "fields", "difference"),
    [
        ("config.json", {"rms_norm_eps": 1e-3}, r"config.norm_eps 1e-05 there and 0.001 now"),
        (
            "config.json",
            {"rope_parameters": None, "rope_theta": 5e4},
            r"config.rope.theta 10000.0 there and 50000.0 now",
        ),
        ("config.json", {"max_position_embeddings": 256}, r"config.context 512 there and 256 now"),
        ("config.json", {"hidden_act": "relu"}, r"config.activation 'silu' there and 'relu' now"),
        ("generation_config.json", {"eos_token_id": [0, 1]}, r"stop_ids \[0\] there and \[0, 1\]"),
        ("tokenizer_config.json", {"chat_template": "<|end|>"}, r"chat_template sha256:\w+\.\.\."),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, r"normalizer None there and sha256:"),
        (
            "tokenizer.json",
            {"decoder": {"type": "ByteFallback"}},
            r"decoder sha256:\w+\.\.\. there",
        ),
    ],
)
def test_what_shapes_a_bases_output_is_compared_by_name(
    base, model, tmp_path, name, fields, difference
):
    """The weights' bytes and the vocabulary are the same."""
    record = tmp_path / "work" / "config.json"
    record.parent.mkdir()
    record.write_text(json.dumps(identity(model)))
    (tmp_path / "base").mkdir()
    other = changed(base, tmp_path / "base", name, **fields)
    check_identity(record, model)
    with pytest.raises(ValueError, match=f"work: made for another base: .*{difference}"):
        check_identity(record, other)
    early = identity(model)
    del early["base_facts"]
    record.write_text(json.dumps(early))
    check_identity(record, other)


def test_of_several_hosts_the_first_reads_the_base_and_the_others_take_its_word(base, monkeypatch):
    told, asked = models.load(base), models.load(base)
    monkeypatch.setattr(hosts, "from_first", lambda work: "sha256:told")
    assert told.content_hash == "sha256:told"
    monkeypatch.setattr(hosts, "same", lambda content: False)
    with pytest.raises(ValueError, match="the hosts have different files of it"):
        _ = asked.content_hash
