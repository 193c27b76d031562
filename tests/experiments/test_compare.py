"""The table of a run and its variants, from planted outcomes."""

import json
from pathlib import Path

import pytest
from test_settings import change, good

from malt_jax import outcomes, shards
from malt_jax.experiments import compare, paper, variants

N = 120


def evaluated(workdir: Path, **right: int) -> None:
    """A work directory whose systems solve the first so many of N questions."""
    rows = [
        {
            "system": system,
            "question_id": f"q{i:03}",
            "status": "correct" if i < count else "unparseable" if i > 110 else "wrong",
            "prompt_tokens": 100,
            "completion_tokens": 10,
        }
        for system, count in right.items()
        for i in range(N)
    ]
    shards.write(workdir / "eval" / "outcomes.parquet", rows, outcomes.SCHEMA)
    flow = dict.fromkeys(
        ["wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"], 3
    )
    results = {"k": 3, "flows": {"malt": flow}, "at_k": {"malt": [{"k": 1}]}}
    (workdir / "eval" / "results.json").write_text(json.dumps(results))
    (workdir / "config.json").write_text(json.dumps({"command": "python -m malt_jax.main"}))


def main_run(tmp_path: Path, **right: int) -> dict:
    config = change(change(good(), "workdir", str(tmp_path)), "suite", "paper_table1")
    evaluated(tmp_path, **right)
    return config


def test_every_row_is_compared_on_the_same_questions(tmp_path):
    config = main_run(tmp_path, sa=30, sa_mv=40, malt_mv=60)
    chosen = variants.of(config)
    evaluated(variants.directory(config, "star_sa"), malt=33, malt_mv=48)
    found = compare.write(config, chosen, ())
    assert json.loads((tmp_path / "comparison.json").read_text()) == found
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["sa", "sa_mv", "malt_mv", "star_sa", "star_sa_mv"]
    assert (found["main"], found["n"]) == ("malt_mv", N)
    star = rows["star_sa_mv"]
    assert (star["accuracy"], star["variant"], star["group"]) == (0.4, "star_sa", "systems")
    assert star["title"] == "STaR, single agent, vote"
    assert star["against_main"]["difference"] == pytest.approx(0.1)
    assert star["against_main"]["ci95"][0] > 0
    assert rows["malt_mv"]["against_main"] is None
    assert rows["sa"]["tokens"] == {"prompt": 12_000, "completion": 1_200}
    assert rows["sa"]["likeness"]["mean"] == pytest.approx(0.25, abs=0.05)
    assert found["flows"].keys() == {"malt", "star_sa"}
    gain = next(row for row in found["format"] if row["from"] == "sa_mv")
    assert (gain["gain"], gain["became_right"], gain["became_parseable"]) == (20 / N, 20 / N, 0)
    assert found["power"]["against"] == "sa_mv"
    assert found["power"]["questions"] < N, "twenty of twenty differing questions are plain"
    text = compare.table(found)
    assert "star_sa_mv" in text
    assert "40.0%" in text


def test_answers_that_became_readable_are_told_apart(tmp_path):
    config = main_run(tmp_path, sa_mv=100, malt_mv=N)
    found = compare.write(config, [], ())
    (gain,) = found["format"]
    assert gain["became_parseable"] == pytest.approx(9 / N)
    assert gain["became_right"] == pytest.approx(11 / N)


def test_more_questions_than_the_main_run_answered_are_left_out(tmp_path):
    """A shorter chain keeps longer questions; comparing its whole set would pair nothing."""
    config = main_run(tmp_path, malt_mv=60)
    other = variants.directory(config, "star_sa")
    evaluated(other, malt=33, malt_mv=48)
    rows = shards.read_one(other / "eval" / "outcomes.parquet")
    extra = [{**row, "question_id": "long"} for row in rows if row["question_id"] == "q000"]
    shards.write(other / "eval" / "outcomes.parquet", rows + extra, outcomes.SCHEMA)
    found = compare.write(config, variants.of(config), ())
    assert {row["n"] for row in found["rows"]} == {N}


def test_other_questions_are_not_paired(tmp_path):
    config = main_run(tmp_path, malt_mv=60)
    other = tmp_path / "other"
    evaluated(other, malt_mv=70)
    rows = shards.read_one(other / "eval" / "outcomes.parquet")
    for row in rows:
        row["question_id"] += "x"
    shards.write(other / "eval" / "outcomes.parquet", rows, outcomes.SCHEMA)
    found = compare.write(config, [], [other])
    assert [row["against_main"] for row in found["rows"]] == [None, None]
    assert found["rows"][1]["name"] == f"malt_mv in {other}"
    with pytest.raises(ValueError, match=r"nowhere.*run --stage=evaluate"):
        compare.write(config, [], [tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("task", "row", "expected"),
    [
        ("gsm8k", "malt_mv", 0.905),
        ("gsm8k", "star_ma", 0.80),
        ("csqa", "debate", 0.7125),
        ("math", "untrained_verifier_mv", 0.545),
        ("gsm8k", "generator_verifier_mv", 0.8875),
        ("math", "turns_2_mv", 0.5575),
        ("math", "dpo_generator_mv", 0.5125),
        ("gsm8k", "untrained_verifier", None),
        ("mawps", "malt_mv", None),
    ],
)
def test_the_papers_numbers_stand_beside_ours(task, row, expected):
    found = paper.accuracy(change(good(), "data.task", task), row)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_papers_model_is_the_one_that_is_run():
    config = change(change(good(), "data.task", "gsm8k"), "model.path", "Qwen/Qwen-2.5-1.5B")
    assert paper.accuracy(config, "malt_mv") == pytest.approx(0.745)
    assert paper.source(config)["model"].startswith("Qwen")
