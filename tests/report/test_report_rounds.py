"""The report of a run of several rounds."""

import shutil
from pathlib import Path

import pytest
from pages import cells
from planted import write_json

from malt_jax import report
from malt_jax.report.load import load


def figures(number: int, malt: float, greedy: float, without: dict[str, list[str]]) -> dict:
    role = {"nodes": 200, "positives": 50 * number, "parents": 40, "parents_with_contrast": 10}
    role |= {"mean_tokens": 12.25, "entropy": 0.5 / number, "truncated": 0.01}
    role |= {"kl_to_base": 0.125} if number == 2 else {}  # the first as an earlier version left it
    accuracy = {"malt": malt, "malt_greedy": greedy}
    return {
        **{"round": number, "threshold": 0.3 * number, "questions": 66, "contrast": 0.75},
        **{"distinct_answers": 2.5, "tokens": {"read": 4321, "written": 1234}, "n": 150},
        **({"temperature": 0.7} if number == 2 else {}),
        "roles": {"verifier": role},
        "accuracy": accuracy | ({"ma": 0.125, "ma_greedy": 0.25} if number == 1 else {}),
        "ci95": {"malt": [malt - 0.1, malt + 0.1]},
        "without_rows": without,
    }


@pytest.fixture
def rounds(workdir: Path) -> Path:
    """The planted run as the second of two rounds, and its trees as those of the first as well."""
    for number in ("1", "2"):
        directory = workdir / "rounds" / number
        directory.mkdir(parents=True)
        shutil.copy(workdir / "config.json", directory)
        shutil.copytree(workdir / "trees", directory / "trees")
    for name in ("datasets", "checkpoints"):
        shutil.move(workdir / name, workdir / "rounds" / "2" / name)
    shutil.rmtree(workdir / "trees")
    done = [figures(1, 0.5, 0.625, {}), figures(2, 0.75, 0.875, {"verifier": ["dpo"]})]
    write_json(workdir / "rounds" / "rounds.json", {"rounds": done, "chosen": 2})
    return workdir


def test_each_round_is_a_row_and_what_is_exported_is_named(rounds):
    rows = cells(report.write(rounds).read_text())
    assert ["untrained", "", "12.5", "25.0"] in rows
    assert ["1", "", "50.0", "62.5"] in rows
    assert ["2, exported", "", "75.0", "87.5"] in rows
    assert ["2", "0.6", "0.7", "66", "75.0%", "2.50", "4,321", "1,234"] in rows
    assert ["verifier", "1", "200", "25.0%", "25.0%", "12.2", "0.500", "", "1.0%", ""] in rows
    assert [
        "verifier",
        "2",
        "200",
        "50.0%",
        "25.0%",
        "12.2",
        "0.250",
        "0.125",
        "1.0%",
        "dpo",
    ] in rows
    text = (rounds / "report" / "report.md").read_text()
    assert (
        "| 2 | 75.0% | [65.0, 85.0] | 87.5% | 0.6 | 0.7 | 66 | 75.0% | 2.50 | 4,321 | 1,234 |"
        in text
    )


def test_yield_and_training_are_of_the_exported_round_and_every_rounds_trees_are_there(rounds):
    run = load(rounds)
    assert run.forest is not None
    assert set(run.forests) == {1}
    assert len(run.yields) * len(run.trainings) > 0
    assert not run.missing
    page = report.write(rounds).read_text()
    assert "training trees of round 2" in page
    assert "training trees of round 1" in page
    assert 'value="round-1"' in page


def test_a_round_whose_figures_lack_something_is_named(rounds):
    write_json(rounds / "rounds" / "rounds.json", {"rounds": []})
    with pytest.raises(ValueError, match=r"rounds.json: .*delete it"):
        load(rounds)
