"""Answers to be judged by hand: what is drawn, what is kept, and the rates that follow."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from recipes import change, good

from malt_jax import recipe, tasks
from malt_jax.config.settings import Settings
from malt_jax.evaluate import judged
from malt_jax.grading import verdict
from malt_jax.rollout import records
from malt_jax.workdir import shards

TASK = tasks.get("gsm8k")
TEXTS = ["Final Answer: 2", "so it is 2.", "Final Answer: 3", "nothing", "\\boxed{2}"]


def settings() -> Settings:
    config = change(change(good(), "data.task", "gsm8k"), "chain", ("generator", "refiner"))
    return recipe.parse(change(config, "eval.systems", ("sa", "ma", "malt_mv")))


def answer(question: int, role: str, text: str) -> dict:
    """A row of records.SCHEMA, graded against the reference 2."""
    grade = verdict(TASK, text, "2")
    return {
        **dict.fromkeys(records.SCHEMA.names),
        "question_id": f"q{question}",
        "question": "1+1",
        "reference": "2",
        "role": role,
        "path": [0] if role == "generator" else [0, 0],
        "completion": text,
        "finish_reason": "stop",
        "answer": grade.answer,
        "status": grade.status,
        "via": grade.via,
    }


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """40 questions, two roles; of the rules' five outcomes the first is the most frequent."""
    texts = [TEXTS[0] if i % 2 else TEXTS[i // 2 % 5] for i in range(40)]
    for shard, role in enumerate(("generator", "refiner")):
        rows = [answer(i, role, text) for i, text in enumerate(texts)]
        shards.write(tmp_path / "trees" / f"shard-{shard:05d}.parquet", rows, records.SCHEMA)
    return tmp_path


def lines(workdir: Path) -> list[dict]:
    text = (workdir / "audit" / "sample.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write(workdir: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (workdir / "audit" / "sample.jsonl").write_text(text)


def test_every_stratum_is_drawn_from_and_large_ones_more(workdir: Path) -> None:
    rates = judged.run(workdir, settings(), 24)
    strata = Counter((row["role"], row["verdict"], row["via"]) for row in lines(workdir))
    assert rates["answers"] == strata.total() == 24
    assert len(strata) == 10
    assert strata["refiner", "correct", "final_answer"] > 3
    assert {row["judged"] for row in lines(workdir)} == {None}


def test_allocation_by_hand() -> None:
    sizes = {("a", "x", ""): 90, ("b", "x", ""): 9, ("c", "x", ""): 1}
    assert list(judged.allocation(sizes, 10).values()) == [8, 1, 1]
    assert list(judged.allocation(sizes, 2).values()) == [1, 1, 0]
    assert judged.allocation(sizes, 1000) == sizes


def test_a_larger_sample_keeps_what_is_judged(workdir: Path) -> None:
    judged.run(workdir, settings(), 10)
    rows = lines(workdir)
    rows[3] |= {"judged": True, "note": "looked at twice"}
    write(workdir, rows)
    for count in (0, 5, 30, 1000):
        judged.run(workdir, settings(), count)
        assert lines(workdir)[:10] == rows
    assert len(lines(workdir)) == 80
    assert len({row["id"] for row in lines(workdir)}) == 80


def test_rates_by_hand(workdir: Path) -> None:
    judged.run(workdir, settings(), 80)
    rows = lines(workdir)
    right = [row for row in rows if row["verdict"] == "correct"]
    wrong = [row for row in rows if row["verdict"] != "correct"]
    for row in right[:8] + wrong[:4]:
        row["judged"] = row in right[1:8] or row in wrong[:2]
    write(workdir, rows)
    rates = judged.run(workdir, settings(), 0)
    assert rates == json.loads((workdir / "audit" / "rates.json").read_text())
    assert (rates["answers"], rates["judged"]) == (80, 12)
    false_right, false_wrong = rates["as_graded"]["false_right"], rates["as_graded"]["false_wrong"]
    assert (false_right["count"], false_right["n"]) == (1, 8)
    assert false_right["interval"] == pytest.approx([0.0224, 0.4709], abs=1e-4)
    assert (false_wrong["count"], false_wrong["n"]) == (2, 4)
    assert rates["as_graded"]["truncated_right"]["n"] == 0
    assert rates["now"] == rates["as_graded"]


def test_answers_cut_short_are_counted_apart(workdir: Path) -> None:
    judged.run(workdir, settings(), 80)
    rows = [row for row in lines(workdir) if row["via"] == "fallback"]
    write(workdir, [row | {"cut": True, "judged": True} for row in rows])
    rates = judged.run(workdir, settings(), 0)["now"]
    assert rates["truncated_right"]["count"] == rates["truncated_right"]["n"] == len(rows) > 0
    assert rates["false_right"]["n"] == rates["false_wrong"]["n"] == 0


def test_a_mended_grader_has_rates_of_its_own(workdir: Path) -> None:
    judged.run(workdir, settings(), 80)
    rows = [row | {"judged": row["completion"] != "nothing"} for row in lines(workdir)]
    rows = [row for row in rows if "3" not in row["completion"]]
    missed = next(row for row in rows if row["verdict"] == "correct")
    missed |= {"verdict": "unparseable", "answer": "", "via": ""}  # as an older grader had it
    write(workdir, rows)
    rates = judged.run(workdir, settings(), 0)
    assert rates["as_graded"]["false_wrong"]["count"] == 1
    assert rates["now"]["false_wrong"]["count"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"judged": tru', "sample.jsonl:2: not JSON"),
        ('{"judged": null}', "sample.jsonl:2: without answer, completion"),
        ('"yes"', "sample.jsonl:2: without every field"),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_written(
    workdir: Path, line: str, message: str
) -> None:
    judged.run(workdir, settings(), 1)
    file = workdir / "audit" / "sample.jsonl"
    file.write_text(broken := file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        judged.run(workdir, settings(), 10)
    assert file.read_text() == broken


@pytest.mark.parametrize("verdict", [1, "true", "right", 0.5, []])
def test_a_judgement_is_true_or_false(workdir: Path, verdict: object) -> None:
    judged.run(workdir, settings(), 1)
    write(workdir, [lines(workdir)[0] | {"judged": verdict}])
    with pytest.raises(ValueError, match=r"jsonl:1: judged .* write true, false or null"):
        judged.run(workdir, settings(), 0)


def test_without_answers_or_a_count_it_says_what_to_do(workdir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sample=N draws N answers"):
        judged.run(workdir, settings(), 0)
    with pytest.raises(ValueError, match="run --stage=collect first"):
        judged.run(tmp_path / "empty", settings(), 5)


def test_another_runs_trees_are_in_that_runs_sample(workdir: Path) -> None:
    with pytest.raises(ValueError, match="no graded answers"):
        judged.run(workdir, replace(settings(), trees="elsewhere"), 5)
