import html
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from pages import cells
from planted import ATTACK, CHAIN, COMMAND, SYSTEMS, paired, results, tree, write_json, write_trees

from malt_jax import report
from malt_jax.config.credit import CreditSettings
from malt_jax.report import headline
from malt_jax.report.forest import load_forest, spread, unpack
from malt_jax.report.load import load


def forest_json(page: str) -> Any:
    """The training trees of a page."""
    match = re.search(r'<script type="application/json" id="forests">(.*?)</script>', page, re.S)
    assert match
    chunks = json.loads(match[1])[0]["chunks"]
    return [tree for chunk in chunks for tree in unpack(chunk)]


def test_figures_on_the_page_are_those_planted(workdir: Path) -> None:
    rows = cells(report.write(workdir).read_text())
    interval = "[74.3, 81.6]"
    assert ["malt_mv", "391", "500", "78.2%", interval, "1", "0", "648", "294"] in rows
    assert ["sa", "", "61.2", "69", ""] in rows  # 20,500 + 14,000 tokens over 500 questions
    assert ["ma minus sa", "", "\u22123.2", "[\u22126.1, \u22120.3]", "0.0003"] in rows
    assert ["ma", "141", "", "93", "\u22123.2", "777", "489"] in rows
    yields = ["1,800", "1,080", "600", "200", "1,039", "257"]
    assert ["generator", *yields, "identical text 37, over cap 4"] in rows
    assert ["SFT rows", "1,039", "57.7%", ""] in rows
    assert ["pairs", "257", "14.3%", ""] in rows
    assert ["overlap ngram", "5", "\u2013"] in rows
    assert not any(row[0] == "dropped" for row in rows)
    assert ["credit.threshold", "0.5"] in rows
    assert ["flax", "0.12.8"] in rows


def test_markdown_carries_the_same_figures(workdir: Path) -> None:
    report.write(workdir)
    text = (workdir / "report" / "report.md").read_text()
    assert (
        "**malt_mv 78.2% [74.3, 81.6], +11.0 points over ma_mv "
        "(paired 95% interval 7.8 to 14.2).** At 95% malt_mv beats ma_mv, sa_mv and sa. "
        "Tokens a question: 13.7 times sa and 4.6 times sa_mv." in text
    )
    assert "| malt_mv | 391 | 500 | 78.2% | [74.3, 81.6] | 1 | 0 | 648 | 294 |" in text
    assert "| malt_mv minus sa | 500 | +17.0 | [13.1, 20.9] | 0.0003 |" in text
    assert "| malt | 156 | 27 | 939 | 378 | +8.6 |" in text
    assert f"```\n{COMMAND}\n```" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert "| malt | verifier | 87.0% | 300 | 40 | 20 | 130 | 10 |" in text
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize("columns", [{"novel_tokens": 2000}, {"novel_tokens": 2000, "unknown": 8}])
def test_a_row_of_a_table_has_a_cell_for_every_heading(workdir: Path, columns: Any) -> None:
    path = workdir / "eval" / "results.json"
    stored = json.loads(path.read_text())
    for row in stored["systems"].values():
        row.update(columns)
    write_json(path, stored)
    report.write(workdir)
    text = (workdir / "report" / "report.md").read_text()
    assert "| with shared prefixes once |" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_loss_is_said_as_plainly_as_a_gain(workdir: Path) -> None:
    systems = SYSTEMS | {"malt_mv": (286, 0.528, 0.615, 1, 0, 324_000, 147_000)}
    losing = [
        paired("sa", "malt_mv", 0.040, 0.002, 0.081),
        paired("malt_mv", "ma_mv", -0.100, -0.14, -0.06),
        paired("malt_mv", "ma", -0.008, -0.05, 0.034),
    ]
    write_json(workdir / "eval" / "results.json", results(systems, losing))
    page = html.unescape(report.write(workdir).read_text())
    # The pair was stored the other way round, so its sign turns.
    said = (
        "malt_mv 57.2% [52.8, 61.5], 10.0 points below ma_mv (paired 95% interval -14.0 to -6.0)."
    )
    assert said in page.replace("\N{MINUS SIGN}", "-")
    assert "At 95% malt_mv loses to ma_mv and sa and cannot be told from ma." in page
    evaluation = load(workdir).evaluation
    assert evaluation is not None
    assert [(pair.b, pair.difference) for pair in headline.against(evaluation, "malt_mv")] == [
        ("ma_mv", -0.100), ("sa", -0.040), ("ma", -0.008)
    ]  # fmt: skip
    assert "beats" not in page


def test_the_control_is_named(workdir: Path) -> None:
    config = json.loads((workdir / "config.json").read_text())
    assert "Negative control" not in report.write(workdir).read_text()
    config["config"]["credit"]["shuffle_rewards"] = True
    write_json(workdir / "config.json", config)
    assert "Negative control" in report.write(workdir).read_text()
    assert "Negative control" in (workdir / "report" / "report.md").read_text()


def test_model_text_cannot_leave_its_script_element(workdir: Path) -> None:
    page = report.write(workdir).read_text()
    assert page.lower().count("<script") == page.lower().count("</script") == 2
    assert "\u2028" not in page
    first = forest_json(page)[0]["nodes"][0]
    assert first["completion"] == ATTACK + "\u2028\u2029 & <b>naïve 数学 𝛑</b>"


def test_the_page_names_no_other_file_and_its_policy_admits_only_itself(workdir: Path) -> None:
    page = report.write(workdir).read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!#)', page.split('id="forests"')[0])
    assert "@import" not in page
    assert "url(" not in page


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("data.json", "collect"),
        ("trees", "collect"),
        ("datasets/yield.json", "datasets"),
        ("checkpoints", "train"),
        ("eval/results.json", "evaluate"),
    ],
)
def test_a_missing_part_is_named_with_its_command(workdir: Path, path: str, stage: str) -> None:
    (workdir / path).rename(workdir / "elsewhere")
    page = report.write(workdir).read_text()
    assert "Not there yet" in page
    assert f"{COMMAND} --stage={stage}" in page
    assert f"{COMMAND} --stage={stage}" in (workdir / "report" / "report.md").read_text()


def test_an_empty_work_directory_has_a_report(tmp_path: Path) -> None:
    page = report.write(tmp_path).read_text()
    for stage in ("collect", "datasets", "train", "evaluate"):
        assert f"--stage={stage}" in page


def test_a_stage_in_the_recorded_command_is_replaced() -> None:
    assert report.stage_command("x --stage=report --a=1", "train") == "x --a=1 --stage=train"
    assert report.stage_command("x --stage=train --a=1", "all") == "x --a=1"


def test_a_chain_of_two_roles_with_other_names(tmp_path: Path) -> None:
    chain = ("author", "judge")
    write_trees(tmp_path / "trees", tree("q", chain, n=2, prompt="as {role}"))
    (entry,) = forest_json(report.write(tmp_path).read_text())
    assert [node["role"] for node in entry["nodes"]] == ["author", "author"]
    assert [node["role"] for node in entry["nodes"][0]["children"]] == ["judge", "judge"]
    # Leaf (0, 0) is right and (0, 1) is not: the mean is a half, which is no positive.
    assert entry["nodes"][0]["value"] == 0.5
    assert entry["nodes"][0]["label"] is False
    assert entry["prompts"] == ["as {role}"]


CREDIT = CreditSettings(0.5, False, 3, 2)


def test_every_tree_is_there(workdir: Path) -> None:
    """60 of them were."""
    forest = load_forest(workdir / "trees", CREDIT, 0)
    assert forest is not None
    assert (forest.total, forest.nodes, len(forest.entries)) == (90, 90 * 39, 90)
    # 88 trees in turn all right, all wrong, even, only leaves right; and two even ones.
    assert forest.kinds == {"rescued": 46, "broken": 24, "disagreement": 24, "unsolved": 22}
    assert "90 of 90\n  trees. 3,510 nodes" in report.write(workdir).read_text()
    assert tuple(forest.prompts) == CHAIN
    assert [len(unpack(chunk)) for chunk in forest.chunks] == [50, 40]
    assert [forest.entries[0][0], forest.entries[-1][0]] == ["q-attack", "q087"]
    # Of the last three one is all wrong, one even (14 of 27 leaves), one right in its leaves.
    assert [value for _, value, _ in forest.entries[-3:]] == pytest.approx([0, 14 / 27, 1])
    assert [tree["id"] for tree in unpack(forest.chunks[1])] == [e[0] for e in forest.entries[50:]]
    assert math.isinf(forest.cut)


def test_trees_that_are_too_large_are_cut_and_then_thinned_out(workdir: Path) -> None:
    """A long text keeps both ends and says how much is left out; of a budget that even short texts
    exceed, an even spread of the trees is there."""
    long = "begin " + " ".join(map(str, range(5000))) + " end"
    write_trees(workdir / "trees", *(tree(f"q{i}", completion=long) for i in range(4)), shard=0)
    (workdir / "trees" / "shard-00001.parquet").unlink()
    whole = load_forest(workdir / "trees", CREDIT, 0)
    assert whole is not None
    size = sum(map(len, whole.chunks))
    shorter = load_forest(workdir / "trees", CREDIT, 0, budget=size // 2)
    assert shorter is not None
    assert (shorter.cut, shorter.left_out) == (4000, 0)
    text = unpack(shorter.chunks[0])[0]["nodes"][0]["completion"]
    assert text.startswith("begin 0 1 2")
    assert text.endswith("4999 end")
    assert f"[… {len(long) - 4000:,} characters …]" in text
    few = load_forest(workdir / "trees", CREDIT, 0, budget=1000)
    assert few is not None
    assert (few.cut, [entry[0] for entry in few.entries]) == (250, ["q0", "q3"])
    assert spread([str(i) for i in range(9)], 3) == ["0", "4", "8"]


def test_the_trained_teams_answers_are_there(workdir: Path) -> None:
    """Of the training trees alone there were transcripts."""
    passes = [row for i in range(3) for row in tree("held-out", n=1)]
    for i, row in enumerate(passes):
        row["path"] = [i // 3, *row["path"][1:]]
    write_trees(workdir / "eval" / "malt", sorted(passes, key=lambda row: len(row["path"])))
    page = report.write(workdir).read_text()
    assert "And 1 of 1\n  questions as the trained team answered them" in page
    match = re.search(r'id="forests">(.*?)</script>', page, re.S)
    assert match
    training, trained = json.loads(match[1])
    assert (training["name"], trained["name"]) == ("training", "trained")
    (transcript,) = unpack(trained["chunks"][0])
    assert [node["role"] for node in transcript["nodes"]] == ["generator"] * 3
    assert [len(node["children"]) for node in transcript["nodes"]] == [1] * 3


def test_answers_without_a_verdict_are_counted_where_there_are_any(workdir: Path) -> None:
    page = report.write(workdir).read_text()
    assert '<th scope="col" class="n">unknown</th>' not in page
    path = workdir / "eval" / "results.json"
    content = json.loads(path.read_text())
    content["systems"]["malt_mv"]["unknown"] = 8
    write_json(path, content)
    rows = cells(report.write(workdir).read_text())
    interval = "[74.3, 81.6]"
    assert ["malt_mv", "391", "500", "78.2%", interval, "1", "0", "8", "648", "294"] in rows
    assert ["sa", "306", "500", "61.2%", "[56.9, 65.4]", "11", "3", "0", "41", "28"] in rows
    text = (workdir / "report" / "report.md").read_text()
    assert "| malt_mv | 391 | 500 | 78.2% | [74.3, 81.6] | 1 | 0 | 8 | 648 | 294 |" in text


def test_settings_that_were_changed_later_stand_with_their_command(workdir: Path) -> None:
    config = json.loads((workdir / "config.json").read_text())
    change = {"lora.rank": {"old": 8, "new": 16}}
    config["changes"] = [
        {"date": "2025-03-02T08:00:00Z", "command": "again --rank", "config": change}
    ]
    write_json(workdir / "config.json", config)
    page = html.unescape(report.write(workdir).read_text())
    assert "lora.rank from 8 to\n  16" in page
    assert ">again --rank</pre>" in page
    assert "again --rank" in (workdir / "report" / "report.md").read_text()


def test_comparisons_of_the_trained_team_come_first(workdir: Path) -> None:
    evaluation = load(workdir).evaluation
    assert evaluation is not None
    assert [pair.a for pair in evaluation.paired] == ["malt_mv"] * 3 + ["malt", "ma_mv", "ma"]


def test_bad_input_is_refused_by_name(workdir: Path) -> None:
    metrics = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    good = metrics.read_text()
    metrics.write_text("{}\n" + good)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:1: .*delete the line"):
        report.write(workdir)
    metrics.write_text(good)
    write_json(workdir / "eval" / "results.json", {"split": {"n": 1}})
    with pytest.raises(ValueError, match=r"results\.json: lacks 'systems'"):
        report.write(workdir)
    with pytest.raises(ValueError, match="no such work directory"):
        report.write(workdir / "nowhere")


def test_a_node_without_its_parent_and_a_damaged_shard_are_refused(tmp_path: Path) -> None:
    rows = [row for row in tree("q") if row["path"] != [0, 1]]
    write_trees(tmp_path / "trees", rows)
    with pytest.raises(ValueError, match=r"question 'q': node \[0, 1, 0\] has no parent"):
        report.write(tmp_path)
    (tmp_path / "trees" / "shard-00000.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ValueError, match=r"shard-00000\.parquet"):
        report.write(tmp_path)


def test_writing_leaves_two_files_and_replaces_old_ones(workdir: Path) -> None:
    page = report.write(workdir)
    page.write_text("old")
    assert report.write(workdir) == page
    assert page.read_text().startswith("<!doctype html>")
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "report.md"}


def test_a_failed_report_leaves_the_old_one(workdir: Path) -> None:
    page = report.write(workdir)
    before = page.read_text()
    (workdir / "eval" / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json"):
        report.write(workdir)
    assert page.read_text() == before
