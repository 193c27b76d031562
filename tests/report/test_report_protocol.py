"""A protocol's comparison on the page: who wins, over which seeds, what failed, how often the test
split was read."""

import html
from pathlib import Path
from typing import Any

import pytest
from pages import cells
from planted import write_json
from planted_comparison import comparison, row

from malt_jax import report
from malt_jax.report import sentences
from malt_jax.report.contract import parse_comparison
from malt_jax.workdir import reads

PRIMARY = {
    **{"against": "star_ma_mv", "rivals": 12, "seeds": 3, "difference": 0.046},
    **{"ci95": [0.011, 0.081], "p": 0.013, "p_holm": 0.04, "verdict": "wins"},
}


def protocol(**primary: Any) -> dict[str, Any]:
    """The planted suite as if it were the mean of three seeds."""
    compared = comparison()
    seeds = {"0": 0.70, "1": 0.72, "2": 0.69}
    for i, of_row in enumerate(compared["rows"]):
        of_row |= {"likeness": None, "paper": None, "by_seed": seeds, "novel_tokens": 562 * 50}
        if of_row["against_main"] and of_row["name"] != "star_ma_mv":
            of_row["against_main"] |= {"p": 0.002, "p_holm": 0.01 + i / 1000}
    return compared | {
        "suite": "protocol",
        "split": "test",
        "test_reads": {"times": 27, "configurations": 9},
        "primary": PRIMARY | primary,
        "failed": {"run_1/debate": {"title": "debate", "reason": "sft: 5 steps were not finite"}},
    }


def minus(text: str) -> str:
    return html.unescape(text).replace("\N{MINUS SIGN}", "-")


def page(workdir: Path, compared: dict[str, Any]) -> tuple[str, str]:
    write_json(workdir / "comparison.json", compared)
    text = minus(report.write(workdir).read_text())
    return text, minus((workdir / "report" / "report.md").read_text())


@pytest.mark.parametrize(
    ("primary", "said", "bounds"),
    [
        ({}, "malt_mv wins: it is 4.6 points above ", "1.1 to 8.1"),
        (
            {"verdict": "loses", "difference": -0.03, "ci95": [-0.05, -0.01]},
            "malt_mv loses: it is 3.0 points below ",
            "-5.0 to -1.0",
        ),
        (
            {"verdict": "undecided", "ci95": [-0.01, 0.081]},
            "Undecided: malt_mv is 4.6 points above ",
            "-1.0 to 8.1",
        ),
    ],
)
def test_the_headline_names_the_best_rival_and_who_wins(
    workdir: Path, primary: dict[str, Any], said: str, bounds: str
) -> None:
    both = page(workdir, protocol(**primary))
    for text in both:
        best = "star_ma_mv 66.0%, the best of 12 rivals, over 3 seeds"
        assert f"{said}{best} (95% interval {bounds})." in text
        assert "At equal compute plain voting" not in text, "that was of one seed"


def test_without_a_primary_comparison_the_best_rival_is_the_first_named() -> None:
    """It was the weakest: one sample of the single agent."""
    assert "points over star_ma_mv" in sentences.result(parse_comparison(comparison()))


def test_the_other_verdicts_are_holms(workdir: Path) -> None:
    compared = protocol()
    for name, difference, p in (("sa", 0.1, 0.2), ("ma", -0.1, 0.01)):
        (of_row,) = (row for row in compared["rows"] if row["name"] == name)
        of_row["against_main"] |= {"difference": difference, "p_holm": p}
    text, _ = page(workdir, compared)
    said = text.split('<p class="verdict">')[1].split("</p>")[0]
    assert said.startswith("By Holm's p-values malt_mv beats sa_mv, ma_mv, star_sa, ")
    assert "star_ma_mv" not in said, "the primary comparison"
    assert said.endswith("loses to ma and cannot be told from sa.")


def test_there_is_a_column_a_seed(workdir: Path) -> None:
    text, markdown = page(workdir, protocol())
    assert ["malt_mv", "70.0", "72.0", "69.0", "70.6", "[66.7, 74.3]"] in cells(text)
    assert "| malt_mv | 70.0% | 72.0% | 69.0% | 70.6% | [66.7, 74.3] |" in markdown
    assert ["system", "seed 0", "seed 1", "seed 2", "mean", "95% interval"] in cells(text)
    assert "over questions and seeds" in text


def test_p_values_are_adjusted_but_for_the_primary_one(workdir: Path) -> None:
    text, _ = page(workdir, protocol())
    rows = {r[0]: r for r in cells(text) if len(r) == 9}
    assert rows["STaR team, vote of 3 star_ma_mv"][-2] == "primary"
    assert rows["single agent sa"][-3:] == ["[7.0, 14.0]", "0.01", "184"]
    assert rows["MALT, vote of 3 malt_mv"][-2] == "–"


def test_tokens_read_distinct_and_written_stand_apart(workdir: Path) -> None:
    text, _ = page(workdir, protocol())
    (counts,) = (r for r in cells(text) if r[:2] == ["sa_mv", "–"])
    assert counts[8:11] == ["96", "50", "262"]


def test_what_failed_is_shown_with_its_reason_and_is_not_missing(workdir: Path) -> None:
    text, markdown = page(workdir, protocol() | {"commands": {"run_1/debate": "run"}})
    assert ["debate run_1/debate", "sft: 5 steps were not finite"] in cells(text)
    assert "| run_1/debate | sft: 5 steps were not finite |" in markdown
    assert "Not there yet" not in text


def test_the_report_says_which_split_and_how_often_the_test_split_was_read(workdir: Path) -> None:
    for text in page(workdir, protocol()):
        assert "All figures are of the test split." in text
        assert "The test split was read 27 times, by 9 configurations." in text
    (development,) = {
        sentences.split_read(parse_comparison(compared).split, (1, 1))
        for compared in [protocol() | {"split": "development"}]
    }
    assert development == (
        "All figures are of the development split. The test split was read once, by 1 "
        "configuration."
    )


def test_a_single_run_says_it_as_well(workdir: Path) -> None:
    test = {"configuration": "c", "seed": 0, "test": "gsm8k:"}
    for seed in (0, 1):
        reads.begin(workdir, test | {"seed": seed})
    assert reads.counts(reads.recorded(workdir), "gsm8k:") == (2, 1)
    assert "All figures are of the test split." in report.write(workdir).read_text()


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="primary: 'maybe' is no verdict"):
        parse_comparison(comparison() | {"primary": PRIMARY | {"verdict": "maybe"}})
    assert parse_comparison(comparison() | {"rows": [row("sa")]}).primary is None
