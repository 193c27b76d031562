"""Votes for as many tokens as a team spends, as systems of their own."""

import json
from dataclasses import replace

import pytest
from planted_outcomes import evaluated
from recipes import good

from malt_jax.evaluate import equal, scoring
from malt_jax.evaluate.scoring import Outcome
from malt_jax.recipe import parse
from malt_jax.types import System

VOTER = System("sa", "single agent", "base", "single", ("generator",))


def samples(*answers: str, prompt: int = 10, written: int = 5) -> list[dict]:
    """A question's samples, of which those that answer "4" are right."""
    return [
        {
            "role": "generator",
            "path": [i],
            "answer": answer,
            "status": "correct" if answer == "4" else "wrong",
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "novel": prompt,
            "novel_in_pass": prompt,
        }
        for i, answer in enumerate(answers)
    ]


def test_a_vote_has_as_many_samples_as_the_tokens_pay_for():
    """28 tokens read and written: a prompt of 10 and four samples of 5. 12 written: three."""
    finals = [samples("3", "4", "4", "3", "4", "3", "3"), samples(*"4444444")]
    paid = [(Outcome("wrong", 40, 12, 16),)] * 2
    votes = equal.votes({"sa": (VOTER, finals)}, paid)
    assert {name: system.votes for name, (system, _) in votes.items()} == {
        "sa_equal": 4, "sa_equal_written": 3
    }  # fmt: skip
    system, answered = votes["sa_equal"]
    assert system.title == "single agent, vote at equal compute"
    assert answered[0] == (Outcome("wrong", 10, 20, 10),), "two against two; the prompt read once"
    (written,) = votes["sa_equal_written"][1][0]
    assert written.status == "correct", "two against one"
    assert scoring.cost(answered, "read_and_written") >= 28
    assert scoring.cost(votes["sa_equal_written"][1], "written") >= 12


def test_where_fewer_samples_are_stored_all_of_them_vote():
    (system, answered), _ = equal.votes(
        {"sa": (VOTER, [samples("4", "3", "4")])}, [(Outcome("wrong", 900, 900, 900),)]
    ).values()
    assert system.votes == 3
    assert answered[0][0].status == "correct"


def test_what_is_spent_may_be_another_runs(tmp_path):
    settings = parse(good())
    other = replace(settings, eval=replace(settings.eval, compute_of=str(tmp_path)))
    with pytest.raises(
        ValueError, match=r"config.eval.compute_of: .*outcomes.parquet is not there"
    ):
        equal.paid_for(other, [VOTER], {})
    evaluated(tmp_path, sa=3, malt_mv=9)
    path, team = tmp_path / "eval" / "results.json", System("malt_mv", "", "trained", "team", (), 3)
    described = {system.name: vars(system) for system in (VOTER, team)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"described": described}))
    paid = equal.paid_for(other, [VOTER], {})
    assert sum(scoring.right(answered) for answered in paid) == 9
    assert equal.paid_for(settings, [VOTER], {}) is None, "there is no team to be paid for"
