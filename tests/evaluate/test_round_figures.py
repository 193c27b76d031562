"""A round's figures, from planted trees."""

import json

import numpy as np
import pytest
from recipes import change, good

from malt_jax.evaluate import round_figures
from malt_jax.recipe import parse
from malt_jax.rollout import records
from malt_jax.workdir import shards


def node(question: str, place: int, parent: int, score: float | None, tokens: int, answer: str):
    role = "generator" if parent < 0 else "refiner"
    empty = dict.fromkeys(records.SCHEMA.names)
    return empty | {
        "question_id": question,
        "role": role,
        "node": place,
        "parent": parent,
        "score": score,
        "status": "" if score is None else "correct" if score else "wrong",
        "answer": answer,
        "prompt_tokens": 10,
        "completion_tokens": tokens,
        "behaviour_logprobs": [-0.5] * tokens,
        "finish_reason": "length" if tokens == 4 else "stop",
    }


@pytest.fixture
def directory(tmp_path):
    """Question a: one root, leaves right and wrong with two answers; b: all right with one."""
    rows = [
        node("a", 0, -1, None, 2, ""),
        node("a", 1, 0, 1.0, 2, "3"),
        node("a", 2, 0, 0.0, 4, "4"),
        node("b", 0, -1, None, 2, ""),
        node("b", 1, 0, 1.0, 2, "5"),
        node("b", 2, 0, 1.0, 2, "5"),
    ]
    shards.write(tmp_path / "trees" / "shard-00000.parquet", rows, records.SCHEMA)
    (tmp_path / "datasets").mkdir()
    counts = {"positives": 1, "value_histogram": {"counts": []}}
    text = json.dumps({"generator": counts, "refiner": counts})
    (tmp_path / "datasets" / "yield.json").write_text(text)
    (tmp_path / "eval").mkdir()
    systems = {"malt": {"accuracy": 0.25, "ci95": [0.1, 0.4], "n": 8}}
    (tmp_path / "eval" / "results.json").write_text(json.dumps({"systems": systems}))
    return tmp_path


def test_the_figures_by_hand(directory):
    config = good()
    change(config, "chain", ("generator", "refiner"))
    change(config, "roles.refiner.prompt", "{question} {generator}")
    change(config, "rounds.number", 2)
    made = round_figures.figures(directory, parse(config), {"generator": 0.25})
    assert made["round"] == 2
    assert (made["questions"], made["contrast"], made["distinct_answers"]) == (2, 0.5, 1.5)
    assert made["tokens"] == {"read": 60, "written": 14}
    assert made["roles"]["generator"] == {
        "mean_tokens": 2.0,
        "truncated": 0.0,
        "entropy": 0.5,
        "kl_to_base": 0.25,
        "positives": 1,
    }
    assert made["roles"]["refiner"]["kl_to_base"] is None
    assert (made["temperature"], made["threshold"]) == (1.0, 0.3)
    assert made["roles"]["refiner"]["mean_tokens"] == 2.5
    assert made["roles"]["refiner"]["truncated"] == 0.25
    assert (made["accuracy"], made["ci95"]) == ({"malt": 0.25}, {"malt": [0.1, 0.4]})


def test_the_best_round_is_the_first_of_the_most_accurate():
    shares = (0.2, 0.5, 0.5, 0.4)
    done = [{"round": i, "accuracy": {"malt": share}} for i, share in enumerate(shares, 1)]
    assert round_figures.best(done) == 2


def test_a_collapse_is_told_with_the_figures_and_half_is_none():
    def made(number: int, entropy: float, tokens: float) -> dict:
        return {"round": number, "roles": {"verifier": {"entropy": entropy, "mean_tokens": tokens}}}

    first = made(1, 0.8, 20.0)
    assert list(round_figures.collapses(first, made(2, 0.4, 10.0))) == []
    entropy, length = round_figures.collapses(first, made(3, np.nextafter(0.4, 0), 9.0))
    assert entropy.startswith("round 3: verifier: 0.4 nats of entropy a token, after 0.8 in roun")
    assert length.startswith("round 3: verifier: 9 tokens a completion, after 20 in round 1;")
