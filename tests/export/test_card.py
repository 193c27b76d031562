"""What a model card says of the results and of the examples, from a planted record."""

import json
from typing import Any

import pytest
import toy_phase
from recipes import change, good

from malt_jax.export import card
from malt_jax.learn.phases import PHASES
from malt_jax.recipe import parse


def record(train: tuple[str, ...] = ("sft", "dpo"), **others: Any) -> dict[str, Any]:
    """A verifier's, as `export` writes it."""
    settings = parse(change(good(), "roles.verifier.train", train))
    counts = {"nodes": 54, "positives": 20, "sft_rows": 18, "pairs": 9, "toy_rows": 41}
    return {
        "role": "verifier",
        "chain": ["generator", "verifier", "refiner"],
        "merged": False,
        "phases": list(train),
        **dict.fromkeys(("base", "base_hash", "tokenizer_hash", "base_model", "license"), "x"),
        "started_from": None,
        "answer_hint": "a number",
        "data": {"questions": 6, "yield": counts},
        "settings": json.loads(json.dumps(settings.as_config())),
        "versions": {"malt-jax": "1"},
        "results": None,
    } | others


def evaluated(equal_compute: Any) -> dict[str, Any]:
    """MALT's vote below the greedy base, at 60% and 80%."""
    systems = {
        name: {"n": 8, "accuracy": accuracy, "ci95": [0.2, 0.9]}
        for name, accuracy in (("sa", 0.5), ("sa_greedy", 0.8), ("malt_mv", 0.6))
    }
    return {"split": {"n": 8}, "k": 3, "systems": systems, "equal_compute": equal_compute}


def test_the_card_says_who_wins_at_equal_compute_and_the_best_comes_first():
    """It had the systems in the order of tables, and nothing of equal compute."""
    row = {"system": "malt_mv", "k": 17, "tokens": 347, "ci95": [-0.1, -0.04]}
    rows = [
        row
        | {"voter": voter, "price": "read_and_written", "difference": 0.6 - accuracy}
        | {"voting": {"accuracy": accuracy}}
        for voter, accuracy in (("sa", 0.65), ("generator", 0.675))
    ]
    lines = card.text(record(results=evaluated(rows))).splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert [line.split("`")[1] for line in table] == ["sa_greedy", "malt_mv", "sa"]
    votes = [line for line in lines if line.startswith("| read and written |")]
    assert votes == [
        "| read and written | `generator` | 17 | 67.5% | -7.5 | -10.0 to -4.0 |",
        "| read and written | `sa` | 17 | 65.0% | -5.0 | -10.0 to -4.0 |",
    ]


@pytest.mark.parametrize("written_before", [None, {"system": "malt_mv", "k": 20}, []])
def test_results_without_votes_at_both_prices_have_no_such_table(written_before):
    assert "equal compute" not in card.text(record(results=evaluated(written_before)))


def test_examples_are_counted_for_the_phases_that_the_role_goes_through(monkeypatch):
    """Those of SFT and DPO were read by name, so another phase's did not show."""
    assert "18 rows for SFT, 9 pairs for DPO." in card.text(record())
    assert "above 0.3; 18 rows for SFT.\n" in card.text(record(("sft",)))
    monkeypatch.setitem(PHASES, "toy", toy_phase.PHASE)
    assert "18 rows for SFT, 41 rows for TOY." in card.text(record(("sft", "toy")))
