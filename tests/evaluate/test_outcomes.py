"""What each system made of a question, from planted passes."""

from dataclasses import replace

import pyarrow as pa
import pytest

from malt_jax.evaluate import scoring, tokens, voting
from malt_jax.evaluate.scoring import Outcome, Passes, flows
from malt_jax.types import PRICES, System
from malt_jax.workdir import shards

CHAIN = ("generator", "refiner")
SINGLE = System("sa", "single agent", "base", "single", CHAIN[:1])
TEAM = System("ma", "untrained team", "base", "team", CHAIN)
MALT = System("malt", "MALT", "trained", "team", CHAIN)


def outcome(system: System, passes: Passes, votes: int = 1) -> Outcome:
    """That of a vote, or of the first pass."""
    return scoring.answers(replace(system, votes=votes), passes)[0]


def passes(*answers: tuple[str, str]) -> Passes:
    """Passes of a two-role chain; "2" is correct, "" unparseable. Of the second role's prompt the
    first 20 tokens are the same in every pass."""

    def row(role: str, path: list[int], answer: str, prompt: int, completion: int) -> dict:
        status = {"2": "correct", "": "unparseable"}.get(answer, "wrong")
        return {
            "role": role,
            "path": path,
            "answer": answer,
            "status": status,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "novel": (prompt if path[0] == 0 else 0 if len(path) == 1 else 10),
            "novel_in_pass": prompt,
        }

    return [
        [row("generator", [i], first, 10, 5), row("refiner", [i, 0], last, 30, 7)]
        for i, (first, last) in enumerate(answers)
    ]


def test_each_system_looks_at_its_own_nodes():
    drawn = passes(("1", "2"), ("2", "3"), ("2", "2"))
    assert outcome(SINGLE, drawn) == Outcome("wrong", 10, 5, 10)
    # Three samples of one prompt: the prompt is counted once.
    assert outcome(SINGLE, drawn, 3) == Outcome("correct", 10, 15, 10)
    assert outcome(TEAM, drawn) == Outcome("correct", 40, 12, 40)
    assert outcome(TEAM, drawn, 3) == Outcome("correct", 100, 36, 60)
    assert outcome(MALT, drawn) == outcome(TEAM, drawn)
    assert outcome(MALT, drawn, 3) == outcome(TEAM, drawn, 3)


def test_ties_and_silence():
    """Among equals the first to appear wins, an empty answer is no vote, and nobody voting is no
    answer."""
    assert outcome(TEAM, passes(("", "3"), ("", "2"), ("", "")), 3).status == "wrong"
    assert outcome(TEAM, passes(("", "2"), ("", "3"), ("", "")), 3).status == "correct"
    assert outcome(TEAM, passes(("", ""), ("", ""), ("", "2")), 3).status == "correct"
    assert outcome(TEAM, passes(("", ""), ("", "")), 3).status == "unparseable"


def test_flows():
    drawn = [passes(("1", "2"), ("2", "3")), passes(("2", "2"), ("", ""))]
    assert flows(drawn) == {
        "wrong_to_right": 1,
        "right_to_wrong": 1,
        "right_to_right": 1,
        "wrong_to_wrong": 1,
    }


def test_verdicts_beside_the_answer_that_was_read():
    """The last of a text's marks counts; no verdict lies between the two. Of 2 right answers and 2
    wrong ones, the accepted right one is before both, the rejected one as good as one."""
    said = [("correct", "right"), ("wrong", "wrong"), ("correct", "wrong"), ("wrong", "dunno")]
    drawn = [
        [[_turn("generator", status, ""), _turn("verifier", "", f"It is {said}.")]]
        for status, said in said
    ]
    assert scoring.verdicts(drawn, ("right", "wrong")) == {
        "verifier": {
            **{"accepted_right": 1, "accepted_wrong": 0, "rejected_right": 1, "rejected_wrong": 1},
            **{"without": 1, "auroc": (1 + 1 + 0.5 + 0) / 4},
        }
    }
    assert scoring.verdicts(drawn, ("yes", "no")) == {}


def _turn(role: str, status: str, completion: str) -> dict[str, str]:
    return {"role": role, "status": status, "completion": completion}


def test_paired_comparisons_and_scores():
    right, wrong = (Outcome("correct", 1, 2, 1),), (Outcome("wrong", 1, 2, 1),)
    by_system = {"sa": [wrong] * 30 + [right] * 70, "malt_mv": [right] * 90 + [wrong] * 10}
    (pair,) = scoring.paired(by_system, seed=0, resamples=2000)
    assert (pair["a"], pair["b"], pair["n"]) == ("malt_mv", "sa", 100)
    assert pair["difference"] == pytest.approx(0.2)
    assert pair["ci95"][0] < 0.2 < pair["ci95"][1]
    assert pair["p_mcnemar"] < 0.01
    score = scoring.score(by_system["sa"], seed=0, resamples=2000)
    assert (score["n"], score["correct"], score["accuracy"]) == (100, 70, 0.7)
    assert score["tokens"] == {"prompt": 100, "completion": 200}
    assert score["ci95"][0] < 0.7 < score["ci95"][1]


def finals(*answers: str) -> list[dict]:
    return [nodes[0] for nodes in passes(*((answer, "") for answer in answers))]


def test_votes_of_k_stored_samples():
    """Three samples, two of them right: a pair votes right if both are, and in half of the pairs
    of one each, where the first to appear wins."""
    agreeing, none = finals("2", "2", "3"), finals("3", "", "")
    assert voting.votes([agreeing, none], 1).tolist() == pytest.approx([2 / 3, 0])
    assert voting.votes([agreeing, none], 2).tolist() == pytest.approx([1 / 3 + 2 / 3 / 2, 0])
    assert voting.votes([agreeing, none], 3).tolist() == [1, 0]
    at = voting.at_k([agreeing, none], voting.curve([agreeing, none]))
    assert [row["k"] for row in at] == [1, 2, 3]
    assert [row["pass"] for row in at] == pytest.approx([1 / 3, 1 / 2, 1 / 2])


def test_equal_compute_buys_as_many_votes_as_the_team_spent_tokens():
    """A prompt of 10 tokens is read once and each sample costs 5: 61 tokens pay for 10.2 samples,
    so 11 are taken, never fewer."""
    samples = [finals(*["2"] * 12), finals(*["3"] * 12)]
    assert voting.voting_tokens(samples, 3) == 25
    assert voting.votes_for(samples, 61) == 11
    assert voting.votes_for(samples, 60) == 10
    assert voting.votes_for(samples, 3) == 1
    team = [(Outcome("correct", 90, 21, 40),), (Outcome("correct", 90, 21, 40),)]
    voted = voting.curve(samples)
    assert 11 not in voted
    equal = voting.equal_compute(team, samples, voted, "read_and_written", seed=0, resamples=200)
    assert (equal["k"], equal["tokens"], equal["voting"]["tokens"]) == (11, 61, 65)
    assert (equal["voting"]["accuracy"], equal["difference"]) == (0.5, 0.5)


def test_a_curve_ends_at_what_is_stored():
    assert voting.sizes(1) == [1]
    assert voting.sizes(2) == [1, 2]
    assert voting.sizes(9) == [1, 2, 3, 5, 8, 9]


def test_every_pass_that_was_drawn_counts():
    """Question 1 is right in 3 of 3 passes, question 2 in 1 of 3: 4 of 6 answers, 66.7%; the
    interval resamples the two questions, so it can be anything from the one's mean to the
    other's."""
    drawn = [passes(("1", "2"), ("1", "2"), ("1", "2")), passes(("", "2"), ("", "3"), ("", ""))]
    answered = [scoring.answers(MALT, of_question) for of_question in drawn]
    score = scoring.score(answered, seed=0, resamples=500)
    assert (score["n"], score["answers"], score["correct"], score["unparseable"]) == (2, 6, 4, 1)
    assert score["accuracy"] == pytest.approx(4 / 6)
    assert score["ci95"] == pytest.approx([1 / 3, 1])
    assert score["tokens"] == {"prompt": 80, "completion": 24}, "of a mean pass"
    vote = [scoring.answers(replace(MALT, votes=3), of_question) for of_question in drawn]
    assert [len(of_question) for of_question in vote] == [1, 1]
    pair = scoring.compared(answered, vote, seed=0, resamples=500)
    assert pair["difference"] == pytest.approx(4 / 6 - 1)
    assert pair["p_mcnemar"] is None, "McNemar's test takes one verdict a question"


def test_the_prices_of_a_vote():
    """A team that reads 400 tokens of which 40 are new, and writes 21: a sample costs 5, its prompt
    10. Written alone 21 pays for 4.2 samples, so five; read and written alike, 61 for eleven."""
    samples = [finals(*["2"] * 12)] * 2
    team = [(Outcome("wrong", 400, 21, 40),)] * 2
    bought = {
        price: voting.equal_compute(team, samples, voting.curve(samples), price, 0, 100)
        for price in PRICES
    }
    assert {price: (row["k"], row["tokens"]) for price, row in bought.items()} == {
        "read_and_written": (11, 61),
        "written": (5, 21),
    }
    assert bought["written"]["voting"]["tokens"] == 25


def test_a_prefix_is_novel_once():
    """Policy a: 1 2 3, then 1 2 4 5 of which 1 2 are there, then 1 2 3 again. Policy b shares
    nothing with it. Without a policy the role stands for it."""

    def row(policy: str, *ids: int, role: str = "r") -> dict:
        return {"policy": policy, "role": role, "prompt_token_ids": list(ids)}

    prompts = [row("a", 1, 2, 3), row("b", 1, 2, 3), row("a", 1, 2, 4, 5), row("a", 1, 2, 3)]
    assert tokens.novel(prompts) == [3, 3, 2, 0]
    assert tokens.novel([row("a", 1, 2, 3), row("a", 1, 2)]) == [3, 0]
    older = [row("", 1, role="r"), row("", 1, role="s"), row("", 1, 2, role="s")]
    assert tokens.novel(older) == [1, 1, 1]


def test_outcomes_of_earlier_versions_are_read(tmp_path):
    """They had one pass a system, and counted no novel tokens."""
    row = {"system": "sa", "question_id": "q", "status": "correct", "prompt_tokens": 7}
    row |= {"completion_tokens": 5}
    names = {"system", "question_id", "status", "prompt_tokens", "completion_tokens"}
    schema = pa.schema([field for field in scoring.SCHEMA if field.name in names])
    shards.write(tmp_path / "outcomes.parquet", [row], schema)
    read = scoring.read_outcomes(tmp_path / "outcomes.parquet")
    assert read == {"sa": {"q": (Outcome("correct", 7, 5, 7),)}}
