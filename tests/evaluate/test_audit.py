"""The grading audit on planted rows, worked out by hand."""

import json
from dataclasses import replace

import planted_graders
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recipes import change, good

from malt_jax import recipe, tasks
from malt_jax.config.settings import Settings
from malt_jax.evaluate import audit
from malt_jax.grading import verdict
from malt_jax.rollout import records
from malt_jax.workdir import shards


def audited() -> Settings:
    config = change(change(good(), "data.task", "gsm8k"), "chain", ("generator", "refiner"))
    change(config, "eval.systems", ("sa", "sa_mv", "ma", "malt_mv"))
    return recipe.parse(config)


SETTINGS = audited()
MARKED, PLAIN, CUT = "so Final Answer: 2", "so it is 2.", "so it is 2 and then"


def row(question: str, path: tuple[int, ...], completion: str, finish: str = "stop") -> dict:
    """A row of records.SCHEMA as a run would have written it."""
    grade = verdict(tasks.get("gsm8k"), completion, "2", truncated=finish == "length")
    return {
        **dict.fromkeys(records.SCHEMA.names),
        "question_id": question,
        "question": "1+1",
        "reference": "2",
        "role": SETTINGS.chain[len(path) - 1],
        "path": list(path),
        "completion": completion,
        "finish_reason": finish,
        "answer": grade.answer,
        "status": grade.status,
    }


def passes(question: str, generators: list[str], refiners: list[str]) -> list[dict]:
    """Three passes of two roles; a completion that ends in "then" ran to its limit."""

    def finish(text: str) -> str:
        return "length" if text.endswith("then") else "stop"

    first = [row(question, (i,), text, finish(text)) for i, text in enumerate(generators)]
    return first + [row(question, (i, 0), text, finish(text)) for i, text in enumerate(refiners)]


BASE = [
    *passes("q1", [PLAIN, MARKED, "Final Answer: 3"], [CUT, MARKED, PLAIN]),
    *passes("q2", ["Final Answer: 3", "Final Answer: 3", CUT], ["nothing", "7", MARKED]),
]


@pytest.mark.parametrize(
    ("completion", "finish", "strict", "graded", "lenient"),
    [
        (MARKED, "stop", "correct", "correct", "correct"),
        (MARKED, "length", "correct", "correct", "correct"),
        (PLAIN, "stop", "unparseable", "correct", "correct"),
        (CUT, "length", "truncated", "truncated", "correct"),
        ("it is 2. Final Answer: two", "stop", "unparseable", "unparseable", "correct"),
        ("so it is 3", "stop", "unparseable", "wrong", "wrong"),
        ("nothing", "stop", "unparseable", "unparseable", "unparseable"),
        ("2 it is, Final Answer: 3", "stop", "wrong", "wrong", "wrong"),
    ],
)
def test_both_readings(completion: str, finish: str, strict: str, graded: str, lenient: str):
    counted = audit.audit([row("q", (0,), completion, finish)], tasks.get("gsm8k"), "eval/base")
    assert [counted[0][f"{x}status"] for x in ("strict_", "", "lenient_")] == [
        strict,
        graded,
        lenient,
    ]
    assert counted[0]["lenient_answer"] == ("2" if lenient == "correct" else counted[0]["answer"])
    assert audit.differs(counted[0]) == (
        counted[0]["strict_answer"] != counted[0]["lenient_answer"]
    )


def test_nodes_that_were_not_graded_are_left_out():
    ungraded = {**row("q", (0,), MARKED), "status": ""}
    assert audit.audit([ungraded], tasks.get("gsm8k"), "trees") == []


def test_accuracies_by_each_reading():
    """q1: sa is 2 without a mark, 2 marked and 3; its vote is 2 (strict: 2 and 3 have a vote each,
    the first wins). q2: sa is 3, 3 and a 2 that was cut, the vote 3 by every reading. Every pass of
    a system that does not vote counts a third."""
    counted = audit.audit(BASE, tasks.get("gsm8k"), "eval/base")
    systems = audit.accuracies(audit.rights(counted, SETTINGS))
    assert {name: pytest.approx(row) for name, row in systems.items()} == {
        "sa": {"n": 2.0, "strict": 1 / 6, "graded": 1 / 3, "lenient": 1 / 2},
        "sa_mv": {"n": 2.0, "strict": 0.5, "graded": 0.5, "lenient": 0.5},
        "ma": {"n": 2.0, "strict": 1 / 3, "graded": 1 / 2, "lenient": 2 / 3},
    }
    assert audit.count([r for r in counted if r["role"] == "refiner"]) == {
        "n": 6,
        "strict": 2,
        "graded": 3,
        "lenient": 4,
        "differ": 3,
        "unknown": 0,
    }


def test_the_files(tmp_path):
    """malt_mv on q2: the unmarked 7 came first, and has a vote except in strict reading."""
    for name, rows in (("trees", BASE[:6]), ("eval/base", BASE), ("eval/malt", BASE)):
        (tmp_path / name).mkdir(parents=True)
        shards.write(tmp_path / name / "shard-00000.parquet", rows[:6], records.SCHEMA)
        if rows[6:]:
            shards.write(tmp_path / name / "shard-00001.parquet", rows[6:], records.SCHEMA)
    counts = audit.run(tmp_path, SETTINGS)
    assert json.loads((tmp_path / "eval" / "audit.json").read_text()) == counts
    assert set(counts["systems"]) == {"sa", "sa_mv", "ma", "malt_mv"}
    assert counts["systems"]["malt_mv"] == {"n": 2, "strict": 1.0, "graded": 0.5, "lenient": 0.5}
    assert counts["answers"]["eval/base refiner"]["differ"] == 3
    listed = pq.read_table(tmp_path / "eval" / "audit.parquet").to_pylist()
    assert len(listed) == sum(counted["differ"] for counted in counts["answers"].values())
    assert all(row["strict_answer"] != row["lenient_answer"] for row in listed)
    first = next(r for r in listed if r["source"] == "eval/base")
    assert (first["question_id"], first["role"], first["path"]) == ("q1", "generator", [0])
    assert (first["strict_answer"], first["answer"], first["lenient_answer"]) == ("", "2", "2")


def with_via(rows: list[dict]) -> list[dict]:
    """The rows as a run writes them that says by which rule it read an answer."""
    task = tasks.get("gsm8k")
    cut = [row["finish_reason"] == "length" for row in rows]
    grades = [
        verdict(task, row["completion"], "2", truncated=truncated)
        for row, truncated in zip(rows, cut, strict=True)
    ]
    return [{**row, "via": grade.via} for row, grade in zip(rows, grades, strict=True)]


def test_a_rows_own_rule_gives_the_readings_that_grading_gives():
    task = tasks.get("gsm8k")
    assert audit.audit(with_via(BASE), task, "trees") == audit.audit(BASE, task, "trees")


def test_only_answers_without_a_mark_are_graded_again(tmp_path):
    """Of 7 rows 3 have no mark that was read, and two of these are alike. Of rows that name no rule
    all are graded, and then leniently."""
    asked = tmp_path / "asked"
    task = replace(tasks.get("gsm8k"), rules=planted_graders.counts)
    texts = ["a", "a", "b", "c", "d", "e", "Final Answer: unreadable"]
    vias = ["fallback", "fallback", "", "final_answer", "boxed", "hashes", "grader"]
    rows = [{**row("q", (0,), text), "reference": str(asked)} for text in texts]
    newer = [{**row, "via": via} for row, via in zip(rows, vias, strict=True)]
    assert len(audit.audit(newer, task, "trees")) == 7
    assert len(asked.read_text()) == 2
    audit.audit(rows, task, "trees")
    assert len(asked.read_text()) == 2 + 6 + 4  # "a" and "b" were read leniently above


def test_the_rule_is_read_where_a_file_has_it(tmp_path):
    """Both kinds of file beside each other in one directory."""
    older = pa.schema([field for field in records.SCHEMA if field.name != "via"])
    newer = older.append(pa.field("via", pa.string()))
    shards.write(tmp_path / "eval" / "base" / "shard-00000.parquet", BASE[:6], older)
    shards.write(tmp_path / "eval" / "base" / "shard-00001.parquet", with_via(BASE[6:]), newer)
    counts = audit.run(tmp_path, SETTINGS)
    assert counts["answers"]["eval/base refiner"]["lenient"] == 4
    assert counts["answers"]["eval/base refiner"]["strict"] == 2


def test_trees_of_another_run_are_not_graded_again(tmp_path):
    """A sweep of five variants graded the main run's samples six times."""
    for name in ("trees", "eval/malt"):
        shards.write(tmp_path / name / "shard-00000.parquet", BASE, records.SCHEMA)
    reusing = replace(SETTINGS, trees="runs/main")
    assert set(audit.run(tmp_path, reusing)["answers"]) == {
        "eval/malt generator",
        "eval/malt refiner",
    }


def test_choices_come_from_the_questions_text():
    """A rows' file holds no choices; without them "the library" would name none."""
    question = "Where are books?\n(A) the bank\n(B) the library"
    unmarked = {**row("q", (0,), MARKED), "question": question, "reference": "B"}
    unmarked |= {"completion": "I think of the library", "status": "unparseable", "answer": ""}
    counted = audit.audit([unmarked], tasks.get("csqa"), "eval/base")[0]
    assert (counted["strict_status"], counted["lenient_status"]) == ("unparseable", "correct")


def test_a_finished_directory_without_evaluation_is_audited_as_far_as_it_goes(tmp_path):
    (tmp_path / "trees").mkdir()
    shards.write(tmp_path / "trees" / "shard-00000.parquet", BASE, records.SCHEMA)
    assert audit.run(tmp_path, SETTINGS)["systems"] == {}
