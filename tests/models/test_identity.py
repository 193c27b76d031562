"""Adapters and checkpoints belong to one base and one tokenizer, and say so."""

import json

import pytest
import small
from exports import another_base, another_tokenizer, drawn, recipe

from malt_jax import export, models
from malt_jax.models.identity import check_identity, identity, tokenizer_hash


def test_an_export_for_another_base_or_tokenizer_is_refused(base, model, tmp_path):
    """Shapes fit, so that nothing but the record shows it."""
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    directory = tmp_path / "export" / "verifier"
    export.load(directory, model)
    for other, part in (
        (another_base(tmp_path / "base"), "base model"),
        (another_tokenizer(base, tmp_path / "tokenizer"), "tokenizer"),
    ):
        message = rf"export/verifier: made for another {part}: {base} \(sha256:\w+\.\.\.\) there, "
        with pytest.raises(ValueError, match=message) as caught:
            export.load(directory, other)
        assert other.source in str(caught.value)
        assert "config.model.path" in str(caught.value)


def test_a_copy_of_the_base_is_the_base(base, model, tmp_path):
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    here, there = identity(model), identity(models.load(tmp_path))
    assert here.pop("base") != there.pop("base")
    assert here == there


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
