"""The table of a run and its variants, from planted outcomes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from planted_outcomes import N, evaluated
from recipes import change, good

from malt_jax.evaluate import scoring
from malt_jax.experiments import compare, paper, suites, text, variant
from malt_jax.report import freshness
from malt_jax.report.contract import parse_comparison
from malt_jax.workdir import shards


def main_run(tmp_path: Path, n: int = N, **right: int) -> dict:
    config = change(change(good(), "workdir", str(tmp_path)), "suite", "paper_table1")
    evaluated(tmp_path, n, **right)
    return config


def test_every_row_is_compared_on_the_same_questions(tmp_path):
    config = main_run(tmp_path, sa=30, sa_mv=40, malt_mv=60)
    chosen = suites.of(config)
    evaluated(variant.directory(config, "star_sa"), malt=33, malt_mv=48)
    comparison = compare.write(config, chosen, ())
    assert json.loads((tmp_path / "comparison.json").read_text()) == comparison
    rows = {row["name"]: row for row in comparison["rows"]}
    assert list(rows) == ["sa", "sa_mv", "malt_mv", "star_sa", "star_sa_mv"]
    assert (comparison["main"], comparison["n"]) == ("malt_mv", N)
    star = rows["star_sa_mv"]
    assert (star["accuracy"], star["variant"], star["group"]) == (0.4, "star_sa", "systems")
    assert star["title"] == "STaR, single agent, vote"
    assert star["against_main"]["difference"] == pytest.approx(0.1)
    assert star["against_main"]["ci95"][0] > 0
    assert (star["system"]["name"], star["system"]["team"]) == ("malt_mv", "trained")
    assert rows["sa_mv"]["system"] == {
        **{"name": "sa_mv", "title": "single agent, vote", "team": "base", "kind": "single"},
        **{"roles": [], "votes": 3, "decoding": "sampled"},
    }
    assert rows["malt_mv"]["against_main"] is None
    assert rows["sa"]["tokens"] == {"prompt": 12_000, "completion": 1_200}
    assert comparison["flows"].keys() == {"malt", "star_sa"}
    gain = next(row for row in comparison["format"] if row["from"] == "sa_mv")
    assert (gain["gain"], gain["became_right"], gain["became_parseable"]) == (20 / N, 20 / N, 0)
    assert comparison["power"]["against"] == "sa_mv"
    assert comparison["power"]["questions"] < N, "twenty of twenty differing questions are plain"
    said = text.table(comparison)
    assert "star_sa_mv" in said
    assert "40.0%" in said


def test_the_papers_protocol_needs_two_subsets_of_a_hundred(tmp_path):
    """Of 100 questions the four subsets were the same, and the spread was zero."""
    comparison = compare.write(main_run(tmp_path, malt_mv=60), [], ())
    assert [row["likeness"] for row in comparison["rows"]] == [None]
    (row,) = compare.write(main_run(tmp_path, 200, malt_mv=50), [], ())["rows"]
    assert row["likeness"]["mean"] == pytest.approx(0.25, abs=0.07)
    assert row["likeness"]["sd"] > 0.01


def test_a_sweeps_rows_say_what_they_sweep(tmp_path):
    config = change(main_run(tmp_path, sa_mv=40, malt_mv=60), "suite", "sweeps")
    chosen = {row.name: row for row in suites.of(config)}
    for name in ("n_4", "theta_0.2"):
        systems = dict.fromkeys(chosen[name].rows, 50)
        evaluated(variant.directory(config, name), **systems)
    written = compare.write(config, list(chosen.values()), ())
    rows = {row["name"]: row for row in written["rows"]}
    assert rows["n_4_mv"]["swept"] == ["n", 4]
    assert rows["theta_0.2"]["swept"] == ["theta", 0.2]
    assert rows["malt_mv"]["swept"] is None
    assert rows["n_4_sa_mv"]["title"] == "single agent, vote, n = 4"
    shown = parse_comparison(written | {"at_k": {}}).sweeps
    assert {word: [(x, row.name) for x, row in points] for word, points in shown.items()} == {
        "n": [(4, "n_4_mv")], "theta": [(0.2, "theta_0.2_mv")]
    }  # fmt: skip


def test_answers_that_became_readable_are_told_apart(tmp_path):
    config = main_run(tmp_path, sa_mv=100, malt_mv=N)
    comparison = compare.write(config, [], ())
    (gain,) = comparison["format"]
    assert gain["became_parseable"] == pytest.approx(9 / N)
    assert gain["became_right"] == pytest.approx(11 / N)


def test_more_questions_than_the_main_run_answered_are_left_out(tmp_path):
    """A shorter chain keeps longer questions; comparing its whole set would pair nothing."""
    config = main_run(tmp_path, malt_mv=60)
    other = variant.directory(config, "star_sa")
    evaluated(other, malt=33, malt_mv=48)
    rows = shards.read_one(other / "eval" / "outcomes.parquet")
    extra = [{**row, "question_id": "long"} for row in rows if row["question_id"] == "q000"]
    shards.write(other / "eval" / "outcomes.parquet", rows + extra, scoring.SCHEMA)
    comparison = compare.write(config, suites.of(config), ())
    assert {row["n"] for row in comparison["rows"]} == {N}


def test_a_row_of_a_part_of_the_questions_is_compared_on_that_part(tmp_path):
    """A debate's prompt leaves out a few long questions, and its row had no difference."""
    config = main_run(tmp_path, malt_mv=60)
    other = tmp_path / "other"
    evaluated(other, malt_mv=40)
    rows = shards.read_one(other / "eval" / "outcomes.parquet")
    shards.write(other / "eval" / "outcomes.parquet", rows[:50], scoring.SCHEMA)
    row = compare.write(config, [], [other])["rows"][1]
    assert (row["n"], row["against_main"]["n"]) == (50, 50)
    assert row["against_main"]["difference"] == pytest.approx(10 / 50)


def test_seeds_are_compared_by_the_systems_that_all_of_them_have(tmp_path):
    """A debate in the main run, which no other seed holds, ended the comparison with a KeyError;
    and the order of the rows was that of a set."""
    config = main_run(tmp_path, malt_mv=60, sa=30, ma_mv=36, debate=50, sa_mv=42, ma=20)
    config["suite"], config["eval"]["resamples"] = "seeds", 50
    for seed in (1, 2):
        place = variant.directory(config, f"seed_{seed}")
        evaluated(place, sa=30 + seed, sa_mv=42, ma=20, ma_mv=36, malt=50, malt_mv=60)
    comparison = compare.write(config, suites.of(config), ())
    assert comparison["seeds"]["runs"] == 3
    titles = [row["title"] for row in comparison["rows"] if row["variant"] == "seed_2"]
    assert titles[-2:] == ["MALT, seed 2", "MALT, vote, seed 2"], "it said only which seed"
    differences = comparison["seeds"]["differences"]
    assert list(differences) == ["sa", "ma_mv", "sa_mv", "ma"]
    assert differences["sa"]["difference"] == pytest.approx((30 + 29 + 28) / 3 / N)


def test_other_questions_are_not_paired(tmp_path):
    config = main_run(tmp_path, malt_mv=60)
    other = tmp_path / "other"
    evaluated(other, malt_mv=70)
    rows = shards.read_one(other / "eval" / "outcomes.parquet")
    for row in rows:
        row["question_id"] += "x"
    shards.write(other / "eval" / "outcomes.parquet", rows, scoring.SCHEMA)
    comparison = compare.write(config, [], [other])
    assert [row["against_main"] for row in comparison["rows"]] == [None, None]
    assert comparison["rows"][1]["name"] == f"malt_mv in {other}"
    with pytest.raises(ValueError, match=r"nowhere.*run --stage=evaluate"):
        compare.write(config, [], [tmp_path / "nowhere"])


def test_a_comparison_knows_the_results_it_was_made_of(tmp_path):
    """An old one stood in the report after its results had changed."""
    config, other = main_run(tmp_path / "main", sa=30, malt_mv=60), tmp_path / "other"
    star = variant.directory(config, "star_sa")
    evaluated(star, malt=33, malt_mv=48)
    evaluated(other, malt_mv=70)
    made_of = compare.write(config, suites.of(config), [other])["inputs"]
    assert list(made_of) == [".", "variants/star_sa", str(other)]

    def changed() -> list[str]:
        return freshness.changed(tmp_path / "main", made_of)

    results = star / "eval" / "results.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"seconds": 9.0}))
    assert changed() == [], "the same was found again"
    evaluated(star, malt=34, malt_mv=48)
    assert changed() == ["variants/star_sa"]
    shutil.rmtree(star)
    assert changed() == [], "the work directory was copied without it"
    evaluated(other, malt_mv=71)
    flow = {"k": 3, "flows": {}, "at_k": {}}
    (tmp_path / "main" / "eval" / "results.json").write_text(json.dumps(flow))
    assert changed() == [str(tmp_path / "main"), str(other)]


def test_variants_are_made_by_the_command_of_the_suite(tmp_path, monkeypatch):
    """It was the command that first used the work directory, which may have had no suite."""
    config = main_run(tmp_path, malt_mv=60)
    line = ["main.py", "--config=c.py", "--stage=report", "--config.suite=control", "--compare=x"]
    monkeypatch.setattr(sys, "argv", line)
    comparison = compare.write(config, suites.of(config), ())
    run = "python -m malt_jax.main --config=c.py"
    assert set(comparison["commands"].values()) == {f"{run} --config.suite=control"}
    assert comparison["command"] == f"{run} --stage=report --config.suite=control --compare=x"


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
def test_the_papers_numbers_stand_beside_ours(tmp_path, task, row, expected):
    config = change(main_run(tmp_path, malt_mv=60), "data.task", task)
    config["roles"]["generator"]["train"] = ("sft",)  # as in the paper
    config["suite"], config["eval"]["resamples"] = "paper_table1,ablations", 5
    for made in suites.of(config):
        evaluated(variant.directory(config, made.name), **dict.fromkeys(made.rows, 40))
    rows = compare.write(config, suites.of(config), ())["rows"]
    (reported,) = [line["paper"] for line in rows if line["name"] == row]
    assert reported == (None if expected is None else pytest.approx(expected))


def test_the_papers_model_is_the_one_that_is_run():
    config = change(change(good(), "data.task", "gsm8k"), "model.path", "Qwen/Qwen-2.5-1.5B")
    assert paper.accuracy(config, "malt_mv") == pytest.approx(0.745)
    assert paper.source(config)["model"].startswith("Qwen")
