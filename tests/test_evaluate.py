"""What each system made of a question, from planted passes."""

import pytest

from malt_jax import evaluate
from malt_jax.evaluate import Outcome, flows, outcome


def passes(*answers: tuple[str, str]) -> evaluate.Passes:
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
    assert outcome("sa", found) == Outcome("wrong", 10, 5)
    # Three samples of one prompt: the prompt is counted once.
    assert outcome("sa_mv", found) == Outcome("correct", 10, 15)
    assert outcome("ma", found) == Outcome("correct", 40, 12)
    assert outcome("ma_mv", found) == Outcome("correct", 100, 36)
    assert outcome("malt", found) == outcome("ma", found)
    assert outcome("malt_mv", found) == outcome("ma_mv", found)


def test_ties_and_silence():
    """Among equals the first to appear wins, an empty answer is no vote, and nobody voting is no
    answer."""
    assert outcome("ma_mv", passes(("", "3"), ("", "2"), ("", ""))).status == "wrong"
    assert outcome("ma_mv", passes(("", "2"), ("", "3"), ("", ""))).status == "correct"
    assert outcome("ma_mv", passes(("", ""), ("", ""), ("", "2"))).status == "correct"
    assert outcome("ma_mv", passes(("", ""), ("", ""))).status == "unparseable"


def test_flows():
    found = [passes(("1", "2"), ("2", "3")), passes(("2", "2"), ("", ""))]
    assert flows(found) == {
        "wrong_to_right": 1,
        "right_to_wrong": 1,
        "right_to_right": 1,
        "wrong_to_wrong": 1,
    }


def test_paired_comparisons_and_scores():
    class Settings:
        seed = 0

        class eval:
            resamples = 2000

    right, wrong = Outcome("correct", 1, 2), Outcome("wrong", 1, 2)
    outcomes = {"sa": [wrong] * 30 + [right] * 70, "malt_mv": [right] * 90 + [wrong] * 10}
    (pair,) = evaluate._paired(outcomes, Settings)
    assert (pair["a"], pair["b"], pair["n"]) == ("malt_mv", "sa", 100)
    assert pair["difference"] == pytest.approx(0.2)
    assert pair["ci95"][0] < 0.2 < pair["ci95"][1]
    assert pair["p_mcnemar"] < 0.01
    score = evaluate._score(outcomes["sa"])
    assert (score["n"], score["correct"], score["accuracy"]) == (100, 70, 0.7)
    assert score["tokens"] == {"prompt": 100, "completion": 200}
    assert score["ci95"][0] < 0.7 < score["ci95"][1]
