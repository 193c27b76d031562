"""What each system made of a question, from planted passes."""

from dataclasses import replace

import pytest

from malt_jax.evaluate import scoring
from malt_jax.evaluate.scoring import Outcome, Passes, flows
from malt_jax.types import System

CHAIN = ("generator", "refiner")
SINGLE = System("sa", "single agent", "base", "single", CHAIN[:1])
TEAM = System("ma", "untrained team", "base", "team", CHAIN)
MALT = System("malt", "MALT", "trained", "team", CHAIN)


def outcome(system: System, passes: Passes, votes: int = 1) -> Outcome:
    return scoring.outcome(replace(system, votes=votes), passes)


def passes(*answers: tuple[str, str]) -> Passes:
    """Passes of a two-role chain; "2" is correct, "" unparseable."""

    def row(role: str, path: list[int], answer: str, prompt: int, completion: int) -> dict:
        status = {"2": "correct", "": "unparseable"}.get(answer, "wrong")
        return {
            "role": role,
            "path": path,
            "answer": answer,
            "status": status,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
        }

    return [
        [row("generator", [i], first, 10, 5), row("refiner", [i, 0], last, 30, 7)]
        for i, (first, last) in enumerate(answers)
    ]


def test_each_system_looks_at_its_own_nodes():
    found = passes(("1", "2"), ("2", "3"), ("2", "2"))
    assert outcome(SINGLE, found) == Outcome("wrong", 10, 5)
    # Three samples of one prompt: the prompt is counted once.
    assert outcome(SINGLE, found, 3) == Outcome("correct", 10, 15)
    assert outcome(TEAM, found) == Outcome("correct", 40, 12)
    assert outcome(TEAM, found, 3) == Outcome("correct", 100, 36)
    assert outcome(MALT, found) == outcome(TEAM, found)
    assert outcome(MALT, found, 3) == outcome(TEAM, found, 3)


def test_ties_and_silence():
    """Among equals the first to appear wins, an empty answer is no vote, and nobody voting is no
    answer."""
    assert outcome(TEAM, passes(("", "3"), ("", "2"), ("", "")), 3).status == "wrong"
    assert outcome(TEAM, passes(("", "2"), ("", "3"), ("", "")), 3).status == "correct"
    assert outcome(TEAM, passes(("", ""), ("", ""), ("", "2")), 3).status == "correct"
    assert outcome(TEAM, passes(("", ""), ("", "")), 3).status == "unparseable"


def test_flows():
    found = [passes(("1", "2"), ("2", "3")), passes(("2", "2"), ("", ""))]
    assert flows(found) == {
        "wrong_to_right": 1,
        "right_to_wrong": 1,
        "right_to_right": 1,
        "wrong_to_wrong": 1,
    }


def test_paired_comparisons_and_scores():
    right, wrong = Outcome("correct", 1, 2), Outcome("wrong", 1, 2)
    found = {"sa": [wrong] * 30 + [right] * 70, "malt_mv": [right] * 90 + [wrong] * 10}
    (pair,) = scoring.paired(found, seed=0, resamples=2000)
    assert (pair["a"], pair["b"], pair["n"]) == ("malt_mv", "sa", 100)
    assert pair["difference"] == pytest.approx(0.2)
    assert pair["ci95"][0] < 0.2 < pair["ci95"][1]
    assert pair["p_mcnemar"] < 0.01
    score = scoring.score(found["sa"])
    assert (score["n"], score["correct"], score["accuracy"]) == (100, 70, 0.7)
    assert score["tokens"] == {"prompt": 100, "completion": 200}
    assert score["ci95"][0] < 0.7 < score["ci95"][1]


def finals(*answers: str) -> list[dict]:
    return [nodes[0] for nodes in passes(*((answer, "") for answer in answers))]


def test_votes_of_k_stored_samples():
    """Three samples, two of them right: a pair votes right if both are, and in half of the pairs
    of one each, where the first to appear wins."""
    one, none = finals("2", "2", "3"), finals("3", "", "")
    assert scoring.votes([one, none], 1).tolist() == pytest.approx([2 / 3, 0])
    assert scoring.votes([one, none], 2).tolist() == pytest.approx([1 / 3 + 2 / 3 / 2, 0])
    assert scoring.votes([one, none], 3).tolist() == [1, 0]
    at = scoring.at_k([one, none], scoring.curve([one, none]))
    assert [row["k"] for row in at] == [1, 2, 3]
    assert [row["pass"] for row in at] == pytest.approx([1 / 3, 1 / 2, 1 / 2])


def test_equal_compute_buys_as_many_votes_as_the_team_spent_tokens():
    """A prompt of 10 tokens is read once and each sample costs 5: 61 tokens pay for 10.2 samples,
    so 11 are taken, never fewer."""
    samples = [finals(*["2"] * 12), finals(*["3"] * 12)]
    assert scoring.voting_tokens(samples, 3) == 25
    assert scoring.votes_for(samples, 61) == 11
    assert scoring.votes_for(samples, 60) == 10
    assert scoring.votes_for(samples, 3) == 1
    team = [Outcome("correct", 40, 21), Outcome("correct", 40, 21)]
    voted = scoring.curve(samples)
    assert 11 not in voted
    found = scoring.equal_compute("malt_mv", team, samples, voted, seed=0, resamples=200)
    assert (found["k"], found["tokens"], found["voting"]["tokens"]) == (11, 61, 65)
    assert (found["voting"]["accuracy"], found["difference"]) == (0.5, 0.5)


def test_a_curve_ends_at_what_is_stored():
    assert scoring.sizes(1) == [1]
    assert scoring.sizes(2) == [1, 2]
    assert scoring.sizes(9) == [1, 2, 3, 5, 8, 9]
