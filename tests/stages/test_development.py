"""The development split: cut from the training data, tested on and trained on by nobody."""

import json

import pytest
from jobs import a_job, write
from recipes import change, good

from malt_jax.recipe import parse

TRAIN = [f"How much are {i} and {i + 1}?" for i in range(30)]
TEST = TRAIN[:3]


def split(tmp_path, **changes):
    given = {
        "data__task": "jsonl",
        "data__train": write(tmp_path / "train.jsonl", TRAIN),
        "data__eval": write(tmp_path / "eval.jsonl", TEST),
        "data__train_questions": 8,
        "data__eval_questions": 0,
        "data__development_questions": 5,
        "eval__split": "development",
    }
    return a_job(tmp_path, **given | changes)


def texts(questions) -> list[str]:
    return [question.text for question in questions]


def test_it_shares_no_question_with_what_is_tested_or_trained_on(tmp_path):
    job = split(tmp_path)
    held_out, training = set(texts(job.held_out)), set(texts(job.training))
    assert (len(held_out), len(training)) == (5, 8)
    assert held_out | training <= set(TRAIN) - set(TEST)
    assert not held_out & training
    test = split(tmp_path, eval__split="test")
    assert set(texts(test.held_out)) == set(TEST)
    assert texts(test.training) == texts(job.training)
    counts = json.loads((tmp_path / "data.json").read_text())
    assert counts["development"]["kept"] == 5
    assert counts["development"]["overlap_exact"] == counts["train"]["overlap_exact"] == 3
    assert counts["train"]["development"] == 5


def test_it_is_the_same_whatever_is_trained_on(tmp_path):
    chosen = texts(split(tmp_path).held_out)
    assert texts(split(tmp_path, data__train_questions=0).held_out) == chosen
    assert texts(split(tmp_path, eval__votes=5).held_out) == chosen
    fewer = split(tmp_path, data__development_questions=3)
    assert texts(fewer.held_out) == chosen[:3]
    assert texts(split(tmp_path, seed=1).held_out) != chosen
    assert texts(split(tmp_path, seed=1, data__seed=0).held_out) == chosen, (
        "the questions' own seed"
    )


def test_none_of_it_was_in_a_warm_start_before(tmp_path):
    """The first 4 questions trained the base: they are passed over, and are no development."""
    first = texts(split(tmp_path, data__development_questions=0, eval__split="test").training)[:4]
    job = split(tmp_path, data__skip_questions=4)
    assert not set(first) & set(texts([*job.held_out, *job.training]))


def test_what_nearly_stands_in_it_is_not_trained_on(tmp_path):
    """The same problem in other words around it."""
    story = "Nora has 12 red marbles and 7 blue marbles in a box and gives 3 of them to Sam"
    twice = write(tmp_path / "twice.jsonl", [f"{story} today.", f"Once {story} again."])
    job = split(tmp_path, data__train=twice, data__development_questions=1)
    assert len(job.held_out) == 1
    with pytest.raises(ValueError, match=r"config.data.train: no question is left"):
        _ = job.training


def test_generated_questions_are_cut_as_well(tmp_path):
    given = {"data__task": "arithmetic", "data__train": "", "data__eval": ""}
    job = split(tmp_path, **given, data__eval_questions=4)
    without = split(tmp_path, **given, data__eval_questions=4, data__development_questions=0,
                    eval__split="test")  # fmt: skip
    assert texts(job.held_out) == texts(without.training)[:5]
    assert texts(job.training)[:3] == texts(without.training)[5:]


def test_a_split_that_was_not_cut_is_refused():
    config = change(good(), "eval.split", "development")
    with pytest.raises(ValueError, match=r"config.eval.split: there is no development split; "):
        parse(config)
