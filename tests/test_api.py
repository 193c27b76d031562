"""The face of the package: what is imported from `malt_jax` itself, on a small model."""

import subprocess
import sys

import numpy as np
import pytest
import small

import malt_jax
from malt_jax.types import Question

PROMPTS = {"generator": "{question}", "refiner": "{question} {generator}"}
ASKED = [("1+2", "3"), ("2+2", "4")]


@pytest.fixture(scope="module")
def model():
    return small.model(scale=4.0)


@pytest.fixture(scope="module")
def team(model):
    lengths = {"generator": 5, "refiner": 4}
    return malt_jax.team(model, PROMPTS, "arithmetic", branching=2, max_new_tokens=lengths,
                         temperature=1.0, rows=8)  # fmt: skip


@pytest.fixture(scope="module")
def trees(team):
    return malt_jax.grow(team, ASKED)


def test_import_is_free_and_names_are_offered():
    code = "import sys, malt_jax; print('jax' in sys.modules, *dir(malt_jax))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, *names = done.stdout.split()
    assert heavy == "False"
    assert set(names) == {*malt_jax.__all__, "__version__"}
    with pytest.raises(AttributeError, match=r"no 'grwo'; it offers .*grow"):
        _ = malt_jax.grwo


@pytest.mark.parametrize("name", [n for n in malt_jax.__all__ if n[0].islower()])
def test_help_says_what_comes_and_goes(name):
    described = getattr(malt_jax, name).__doc__
    assert described
    assert len(described.splitlines()) > 2
    if name not in ("propagate", "grow", "rows", "solve"):
        assert "Raises" in described


def test_values_of_plain_lists():
    """The example of its documentation, and a missing leaf."""
    first, leaves = malt_jax.propagate([[[1, 0], [1, 1]]])
    assert first.tolist() == [[0.5, 1.0]]
    assert leaves.tolist() == [[[1, 0], [1, 1]]]
    first, _ = malt_jax.propagate([[[1, float("nan")], [float("nan"), float("nan")]]])
    np.testing.assert_array_equal(first, [[1.0, np.nan]])


def test_samples_of_a_prompt_do_not_depend_on_the_others(model):
    both = malt_jax.sample(model, ["1+1", "2+3"], 2, max_new_tokens=6, rows=8)
    alone = malt_jax.sample(model, ["2+3"], 2, max_new_tokens=6, rows=8)
    assert [len(texts) for texts in both] == [2, 2]
    assert both[1] == alone[0]
    other = malt_jax.sample(model, ["2+3"], 2, max_new_tokens=6, rows=8, seed=1)
    assert other != alone


def test_trees_are_whole_and_their_worth_follows_from_the_leaves(trees):
    assert [len(tree) for tree in trees] == [6, 6]  # 2 and 2 x 2
    for tree in trees:
        assert [node["parent"] for node in tree] == [-1, -1, 0, 0, 1, 1]
        for place, node in enumerate(tree):
            below = [child["value"] for child in tree if child["parent"] == place]
            assert node["value"] == pytest.approx(np.mean(below) if below else node["score"])
            assert node["label"] == (node["value"] > 0.5)


def test_rows_of_a_phase_come_from_the_trees(trees):
    planted = [dict(node) for node in trees[0]]
    for node in planted:
        right = node["path"] in ([0], [0, 0])
        node |= {"value": float(right), "label": right, "completion": str(node["path"])}
    sft = malt_jax.rows([planted], "refiner", "sft")
    assert [row["completion"] for row in sft] == ["[0, 0]"]
    pairs = malt_jax.rows([planted], "refiner", "dpo")
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("[0, 0]", "[0, 1]")]
    labels = malt_jax.rows([planted], "generator", "kto")
    assert [row["label"] for row in labels] == [True, False]


def test_training_makes_its_rows_likelier_and_names_a_wrong_setting(model, trees):
    planted = [dict(node, value=1.0, label=True) for node in trees[0]]
    data = malt_jax.rows([planted], "generator", "sft")
    adapter = malt_jax.train(model, data, "sft", rank=2, alpha=4.0, epochs=8, batch=2,
                             learning_rate=5e-3, held_out=0.0)  # fmt: skip
    assert max(float(np.abs(pair["b"]).max()) for pair in adapter.layers[0].values()) > 0
    with pytest.raises(ValueError, match=r"config\.sft\.lr: .*did you mean config\.sft\.learning"):
        malt_jax.train(model, data, "sft", lr=1.0)
    with pytest.raises(ValueError, match="no rows to learn from"):
        malt_jax.train(model, [], "sft")


def test_a_team_answers_by_vote_and_shows_what_was_said(team):
    solution = malt_jax.solve(team, "1+2", votes=3)
    assert solution == malt_jax.solve(team, "1+2", votes=3)
    assert len(solution.transcript) == 3
    assert all(set(said) == {"generator", "refiner"} for said in solution.transcript)
    assert sum(solution.votes.values()) <= 3
    assert solution.answer in ("", *solution.votes)
    assert 0 < solution.tokens_written <= 3 * (5 + 4)


def test_a_prompt_that_shows_what_nobody_wrote_is_refused(model):
    with pytest.raises(ValueError, match=r"\{critic\} is not one of"):
        malt_jax.team(model, {"generator": "{question} {critic}"}, "arithmetic")


def test_questions_may_have_all_that_they_have(team):
    question = Question("mine", "1+2", "3")
    (tree,) = malt_jax.grow(team, [question])
    assert {node["question_id"] for node in tree} == {"mine"}
