"""comparison.json on the page: what is read, what is refused, and what is said."""

import html
import json
from pathlib import Path
from typing import Any

import pytest
from pages import cells
from planted import ATTACK, write_json
from planted_comparison import COMMAND, comparison, row

from malt_jax import report
from malt_jax.evaluate import scoring
from malt_jax.report import freshness, headline, plots, sentences
from malt_jax.report.contract import parse_comparison
from malt_jax.report.load import load
from malt_jax.workdir import shards


def minus(text: str) -> str:
    return html.unescape(text).replace("\N{MINUS SIGN}", "-")


def written(workdir: Path, content: dict[str, Any]) -> str:
    write_json(workdir / "comparison.json", content)
    return minus(report.write(workdir).read_text())


def equal(difference: float, low: float, high: float) -> str:
    """What is said of MALT at this distance from plain voting."""
    content = comparison()
    content["equal_compute"] |= {"difference": difference, "ci95": [low, high]}
    return minus(headline.equal_compute(parse_comparison(content).equal_compute))


def test_the_table_holds_what_was_planted(workdir: Path) -> None:
    rows = cells(written(workdir, comparison()))
    assert [
        "untrained team, vote of 3 ma_mv", "", "65.1", "", "87.00", "65.3 ± 3.1", "+5.5",
        "[2.0, 9.0]", "2,542",
    ] in rows  # fmt: skip
    assert ["MALT, vote of 3 malt_mv", "", "70.6", "best", "90.50"] in [r[:5] for r in rows]
    assert ["Ablations"] in rows
    assert ["refiner left untrained", "", "+4.4", "[0.9, 7.9]", "0.01"] in rows
    assert ["sa_mv to malt_mv", "", "+1.2", "+8.7", "-3.5", "+6.4"] in rows
    assert ["its own critique", "", "64.6", "[60.5, 68.4]"] in rows
    assert ["ma_mv", "", "+3.0", "[-1.4, 7.1]"] in rows
    assert ["star_ma", "92", "", "95", "+0.2", "925", "574"] in rows
    assert ["sft_only", "sft_only", "399", "562", "[67.1, 74.6]", "7", "4", "2"] in [
        r[:8] for r in rows
    ]


def test_the_best_of_a_group_is_marked_in_words(workdir: Path) -> None:
    marked = [r[0] for r in cells(written(workdir, comparison())) if "best" in r]
    assert [name.split()[-1] for name in marked] == ["malt_mv", "sft_only", "n_5", "symbolic"]


def test_the_headline_says_how_it_stands_at_equal_compute() -> None:
    assert equal(0.05, 0.02, 0.08) == (
        "At equal compute malt_mv wins: it is 5.0 points above (95% interval 2.0 to 8.0)."
    )
    assert equal(-0.05, -0.08, -0.02) == (
        "At equal compute plain voting wins: malt_mv is 5.0 points below "
        "(95% interval -8.0 to -2.0)."
    )
    assert equal(0.01, -0.02, 0.04) == (
        "At equal compute malt_mv cannot be told from plain voting: it is 1.0 points above "
        "(95% interval -2.0 to 4.0)."
    )


def test_of_each_price_the_strongest_vote_is_said() -> None:
    """The trained generator's vote is stronger than the single agent's at the one price, and the
    single agent's at the other."""
    planted = comparison()["equal_compute"]
    rows = [
        planted | {"voter": voter, "price": price, "difference": 0.7 - accuracy}
        | {"ci95": [0.69 - accuracy, 0.71 - accuracy]}
        | {"voting": planted["voting"] | {"accuracy": accuracy}}
        for voter, price, accuracy in (
            ("sa", "read_and_written", 0.75),
            ("generator", "read_and_written", 0.8),
            ("sa", "written", 0.65),
            ("generator", "written", 0.6),
        )
    ]  # fmt: skip
    content = parse_comparison(comparison() | {"equal_compute": rows})
    assert minus(headline.equal_compute(content.equal_compute)) == (
        "At equal compute, counting tokens read and written alike, plain voting of the trained "
        "generator wins: malt_mv is 10.0 points below (95% interval -11.0 to -9.0). "
        "At equal compute, counting tokens written only, malt_mv wins: it is 5.0 points above "
        "(95% interval 4.0 to 6.0)."
    )


def test_a_win_of_plain_voting_stands_in_the_headline(workdir: Path) -> None:
    content = comparison()
    content["equal_compute"] |= {"difference": -0.05, "ci95": [-0.08, -0.02]}
    page = written(workdir, content)
    head = page.split('<p class="result">')[1].split("</p>")[0]
    assert "malt_mv 70.6% [66.7, 74.3], +4.6 points over star_ma_mv" in head
    assert "At equal compute plain voting wins: malt_mv is 5.0 points below" in head
    text = minus((workdir / "report" / "report.md").read_text())
    assert "At equal compute plain voting wins: malt_mv is 5.0 points below" in text


def test_the_plain_sentences() -> None:
    content = parse_comparison(comparison())
    assert minus(sentences.split(content.splits[0])) == (
        "From sa_mv to malt_mv: +6.4 points, which are +1.2 for answers that could not be read "
        "before, +8.7 for wrong answers put right and -3.5 for right answers lost."
    )
    assert minus(sentences.critiques(content)) == (
        "The trained refiner is right on 64.6% with its own critique, 60.1% with another "
        "question's critique (-4.5 points) and 61.2% without any (-3.4 points)."
    )
    assert sentences.power(content) == (
        "A difference of 1.9 points to sa_mv, where 11.0% of the questions set the two "
        "systems apart, takes 2,390 questions to show with 80% power, and there are 562."
    )


def test_sweeps_are_rows_named_by_a_word_and_a_number() -> None:
    content = parse_comparison(comparison())
    assert {word: [x for x, _ in rows] for word, rows in content.sweeps.items()} == {
        "n": [2, 3, 5],
        "theta": [0.3, 0.5, 0.7],
        "temperature": [0.5],
    }


def test_votes_are_compared_with_votes_where_there_are_both() -> None:
    names = ("n_2", "n_2_mv", "n_4_mv", "n_4_sa_mv", "votes_9_mv")
    rows = [row("n_2") | {"name": name} for name in names]
    alone = row("without_g")  # of a group in which nothing votes
    content = parse_comparison(comparison() | {"rows": [row("malt_mv"), *rows, alone]})
    assert {word: [r.name for _, r in rows] for word, rows in content.sweeps.items()} == {
        "n": ["n_2_mv", "n_4_mv"],
        "votes": ["votes_9_mv"],
    }
    compared = [r.name for r in content.differences]
    assert compared == ["without_g", "n_2_mv", "n_4_mv", "n_4_sa_mv", "votes_9_mv"]


def test_the_main_run_stands_at_its_own_value_of_a_sweep(workdir: Path) -> None:
    content = comparison()
    content["rows"] = [row("malt_mv"), row("n_2"), row("n_5"), row("temperature_0.5")]
    write_json(workdir / "comparison.json", content)
    run = load(workdir)  # its roles branch three times, and it names no temperature
    assert run.comparison is not None
    (captioned,) = plots.sweeps(run.comparison, run.settings)
    assert captioned[:2] == ("n", "2: 67.6%, 3: 70.6%, 5: 71.9%")
    assert plots.sweeps(run.comparison, None)[0][1] == "2: 67.6%, 5: 71.9%"


def test_a_greedy_main_run_stands_at_temperature_zero(workdir: Path) -> None:
    """Zero counted as no value, and the sweep of one other value as no sweep."""
    content = comparison()
    content["rows"] = [row("malt_mv"), row("temperature_0.5")]
    write_json(workdir / "comparison.json", content)
    config = json.loads((workdir / "config.json").read_text())
    config["config"]["sample"] = {"temperature": 0}
    write_json(workdir / "config.json", config)
    run = load(workdir)
    assert run.comparison is not None
    assert plots.sweeps(run.comparison, run.settings)[0][:2] == (
        "temperature", "0: 70.6%, 0.5: 69.4%"
    )  # fmt: skip


def test_a_variant_that_made_rows_of_other_names_is_not_missed() -> None:
    made = row("n_2") | {"name": "sa_seed_1", "variant": "seed_1", "group": "seeds"}
    commands = {"seed_1": "run", "seed_2": "run"}
    content = parse_comparison(comparison() | {"rows": [made], "commands": commands})
    assert content.lacking == {"seed_2": "run"}
    assert content.by_command == {"run": ["seed_1", "seed_2"]}


def test_a_suite_of_seeds_is_not_headed_as_ablations(workdir: Path) -> None:
    """Its curves by number of samples counted as sweeps."""
    main = comparison() | {"rows": [row("malt_mv"), row("sa")]}
    assert '<h2 id="ablations">Other seeds</h2>' in written(workdir, main)
    assert '<h2 id="ablations">By number of samples</h2>' in written(workdir, main | {"seeds": {}})


def test_fewer_tokens_of_plain_voting_are_owned_up_to() -> None:
    content = comparison()
    assert "no more samples" not in sentences.spent(parse_comparison(content))
    content["equal_compute"]["voting"]["tokens"] = 1800.0
    said = "at 1,800 tokens a question, where malt_mv spends 2,482; no more samples were drawn."
    assert sentences.spent(parse_comparison(content)).endswith(said)


def test_markdown_has_the_same_tables(workdir: Path) -> None:
    written(workdir, comparison())
    text = minus((workdir / "report" / "report.md").read_text())
    line = (
        "| MALT, vote of 3 (best) | malt_mv | 397 | 562 | 70.6% | [66.7, 74.3] | 90.50% | "
        "70.8 ± 3.1 |  |  |  |  | 1,760 |  | 722 | 7 | 4 | 2 |"
    )
    assert line in text
    assert "| 45 | 68.9% | [64.9, 72.6] | 4,056 |" in text
    assert "| sa_mv | malt_mv | +6.4 | +1.2 | +8.7 | -3.5 |" in text
    assert "| own | 64.6% | [60.5, 68.4] |" in text
    tables: list[list[str]] = [[]]
    for row_text in text.splitlines():
        if row_text.startswith("|"):
            tables[-1].append(row_text)
        elif tables[-1]:
            tables.append([])
    for table in tables:
        assert len({line.count("|") for line in table}) <= 1


def test_only_suite_main_and_rows_must_be_there(workdir: Path) -> None:
    page = written(workdir, {"suite": "s", "main": "malt_mv", "rows": [row("sa")]})
    assert "malt_mv is not there yet; best is sa 60.1%." in page
    for part in ("plain voting", "Where the gain comes from", "Ablations and sweeps", "80% power"):
        assert part not in page
    nothing = written(workdir, {"suite": "s", "main": "malt_mv", "rows": [], "voting": None})
    assert "Nothing was compared yet." in nothing


def test_rows_that_are_not_there_are_named_with_their_command(workdir: Path) -> None:
    page = written(workdir, comparison())
    assert "<b>Not there yet:</b> one_role. This makes it:" in page
    assert f"{COMMAND} --config.variant=one_role</pre>" in page
    assert page.count(f"{COMMAND} --config.variant=star_ma<") == 1


def test_a_comparison_of_older_results_is_not_shown(workdir: Path) -> None:
    """It stood there beside results that contradicted it."""
    shards.write(workdir / "eval" / "outcomes.parquet", [], scoring.SCHEMA)
    made_of = {".": freshness.fingerprint(workdir)}
    content = comparison() | {"inputs": made_of, "command": "run --config.suite=s"}
    assert "MALT, vote of 3" in written(workdir, content)
    results = json.loads((workdir / "eval" / "results.json").read_text())
    write_json(workdir / "eval" / "results.json", results | {"k": 5})
    page = written(workdir, content)
    assert "MALT, vote of 3" not in page
    assert f"(comparison.json is older than those in {workdir})" in page
    assert "run --config.suite=s --stage=report</pre>" in page
    assert '<p class="result">malt_mv 78.2%' in page, "the run's own headline"
    assert "run --config.suite=s --stage=report" in (workdir / "report" / "report.md").read_text()


def test_several_runs_without_one_of_their_own_are_a_page(tmp_path: Path) -> None:
    content = {"suite": "runs", "main": "a", "rows": [row("sa") | {"name": "a", "group": "runs"}]}
    page = written(tmp_path, content)
    assert "Not there yet" not in page
    assert "What the trees yielded" not in page
    assert "<h1>runs" in page


def test_a_title_with_a_script_stays_text(workdir: Path) -> None:
    content = comparison()
    content["rows"][0] |= {"title": ATTACK, "name": ATTACK, "variant": ATTACK, "group": ATTACK}
    content["rows"][1] |= {"title": ATTACK}
    content["suite"] = content["main"] = ATTACK
    content["commands"] = {ATTACK: ATTACK}
    write_json(workdir / "comparison.json", content)
    page = report.write(workdir).read_text()
    assert page.lower().count("<script") == page.lower().count("</script") == 2
    assert "<img" not in page
    assert html.escape(ATTACK, quote=False)[:20] in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": None}, "rows: None is no list"),
        ({"rows": [{"name": "sa"}]}, r"rows\[0\] lacks 'n'"),
        ({"rows": [row("sa"), row("sa")]}, "rows: 'sa' stands there twice"),
        ({"rows": [row("sa") | {"accuracy": "0.6"}]}, r"rows\[0\]: '0.6' is no finite number"),
        ({"rows": [row("sa") | {"ci95": [0.1]}]}, r"rows\[0\]: not enough values"),
        ({"rows": [row("sa") | {"correct": -1}]}, r"rows\[0\]: -1 is no count"),
        ({"rows": [row("sa") | {"against_main": {"n": 5}}]}, r"rows\[0\] lacks 'difference'"),
        ({"voting": [{"k": 1}]}, r"voting\[0\] lacks 'accuracy'"),
        ({"equal_compute": {"system": "malt"}}, "equal_compute lacks 'tokens'"),
        ({"flows": {"malt": {}}}, "flows.malt lacks 'wrong_to_right'"),
        ({"seeds": {"differences": {"sa": {}}}}, "seeds.differences.sa lacks 'difference'"),
        ({"critiques": {"own": {"accuracy": 1}}}, "critiques.own lacks 'ci95'"),
        ({"power": {"discordant": float("nan")}}, "power: nan is no finite number"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(
    workdir: Path, change: dict[str, Any], said: str
) -> None:
    (workdir / "comparison.json").write_text(json.dumps(comparison() | change))
    with pytest.raises(ValueError, match=rf"comparison\.json: {said}.*; delete it and compare"):
        load(workdir)
