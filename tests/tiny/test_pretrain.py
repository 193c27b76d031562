"""A few steps of pretraining: the same seed gives the same file, and no question leaks."""

import re

import jax
import numpy as np
import pytest

from malt_jax.models import hf
from malt_jax.tasks import arithmetic
from malt_jax.tiny import corpus, pretrain


def weights(directory, seed):
    shape, params, words = pretrain.pretrain(clean=2, mixed=2, seed=seed)
    hf.save(directory, shape, params)
    words.save(directory)
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


@pytest.mark.slow
def test_the_seed_fixes_every_file(tmp_path):
    first, again, other = (
        weights(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    differing = {name for name in first if first[name] != other[name]}
    assert differing == {"model.safetensors"}


def test_a_few_steps_lower_the_loss_of_each_role():
    shape, params, words = pretrain.pretrain(clean=6, mixed=6, seed=0)
    (batch,) = pretrain.batches(words, 5, 1, corpus.RATES)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    _, nll = jax.jit(pretrain.loss, static_argnums=0)(shape, params, batch)
    for role in corpus.RATES:
        assert float(nll[role]) < np.log(shape.vocab_size) - 0.3


def test_pretraining_has_no_question_of_the_job():
    texts = {q.text for q in arithmetic.generate(pretrain.QUESTIONS, 0, "pretrain")}
    for split in ("train", "eval"):
        assert texts.isdisjoint(question.text for question in arithmetic.generate(1500, 0, split))


@pytest.mark.parametrize("rates", [pretrain.GOOD, corpus.RATES])
def test_batches_hold_the_documents_and_all_after_the_question_is_learned(rates):
    words = pretrain.tokenizer()
    for batch in pretrain.batches(words, 0, 2, rates):
        for role, rows in batch.items():
            manners = rates["generator" if role == "debater" else role]
            openings = sum((corpus.OPENINGS[manner] for manner in manners), ())
            assert len(rows.tokens) == pretrain.ROWS[role]
            for row, start, end in zip(rows.tokens, rows.starts, rows.ends, strict=True):
                (turn,) = np.flatnonzero(row == words.fast.token_to_id("<|assistant|>"))
                assert words.decode(row[turn + 1 : end]).startswith(openings)
                assert re.search(r": \d([+-]\d){4}$", words.decode(row[:start]))
                assert row[end - 1] == words.end_id
                assert set(row[end:]) <= {words.pad_id}


def test_a_text_beyond_the_width_is_an_error():
    document = corpus.Document("Solve: 1+2+3-4+5", "Easy. " * 30)
    with pytest.raises(ValueError, match="broadcast"):
        pretrain._batch(pretrain.tokenizer(), [document], pretrain.WIDTHS["generator"])
