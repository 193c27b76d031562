"""A grading audit: which answers depend on where the grader looked for them.

Strict reading takes an answer only from an explicit mark ("Final Answer:", a box, "####"). Lenient
reading takes the first mark it can read, else what the text holds anywhere (the last number, the
last formula), finished or not. A run's own grades find an answer wherever strict reading does, and
nowhere that lenient reading does not. Where a system's accuracies by the two are far apart,
comparing it measures its format as much as its answers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from absl import logging

from malt_jax import grading, tasks
from malt_jax.config.settings import Settings
from malt_jax.evaluate import passes, scoring, systems
from malt_jax.evaluate.scoring import Row
from malt_jax.grading import Sample
from malt_jax.tasks import Task
from malt_jax.types import Grade, System
from malt_jax.workdir import shards, storage

COLUMNS = (
    *("question_id", "question", "reference", "role", "path", "completion"),
    *("finish_reason", "answer", "status"),
)
SCHEMA = pa.schema(
    [
        ("source", pa.string()),  # "trees", "eval/base", "eval/malt"
        ("question_id", pa.string()),
        ("role", pa.string()),
        ("path", pa.list_(pa.int32())),
        ("reference", pa.string()),
        ("answer", pa.string()),  # as the run graded it
        ("status", pa.string()),
        ("strict_answer", pa.string()),
        ("strict_status", pa.string()),
        ("lenient_answer", pa.string()),
        ("lenient_status", pa.string()),
    ]
)


def run(workdir: Path, settings: Settings) -> Row:
    """Reads `trees/` and `eval/*/`, writes `eval/audit.parquet` (the answers on which the readings
    differ) and `eval/audit.json` (the counts); returns the counts. Another run's trees
    (`config.trees`) are in that run's audit."""
    task = tasks.chosen(settings)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    right: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    evaluation = workdir / "eval"
    with shards.writing(evaluation / "audit.parquet", SCHEMA) as add:
        for directory in directories(workdir, settings):
            source = directory.relative_to(workdir).as_posix()
            for path in shards.paths(directory):  # one in memory at a time
                stored = shards.read_one(path, (*COLUMNS, "via"), optional=("via",))
                rows = audit(stored, task, source)
                add([row for row in rows if differs(row)])
                for role in dict.fromkeys(row["role"] for row in rows):
                    of_role = [row for row in rows if row["role"] == role]
                    answers[f"{source} {role}"].update(count(of_role))
                for system, counted in rights(rows, settings).items():
                    for reading, count_of_reading in counted.items():
                        right[system][reading] += count_of_reading
    counts: Row = {
        "answers": {name: dict(row) for name, row in answers.items()},
        "systems": accuracies(right),
    }
    storage.write_json(evaluation / "audit.json", counts)
    for name, row in counts["systems"].items():
        logging.info(
            "audit %-8s strict %.1f%%, as graded %.1f%%, lenient %.1f%%",
            name,
            *(100 * row[reading] for reading in ("strict", "graded", "lenient")),
        )
    return counts


def directories(workdir: Path, settings: Settings) -> list[Path]:
    """Where a run's own graded samples lie: its trees, and what it evaluated."""
    evaluation = workdir / "eval"
    evaluated = {path.parent for path in storage.files(evaluation)} - {evaluation}
    return ([] if settings.trees else [workdir / "trees"]) + sorted(evaluated)


def audit(rows: Iterable[Row], task: Task, source: str) -> list[Row]:
    """The graded ones of `rows` (of `records.SCHEMA`), each with both readings of it, as rows of
    SCHEMA. Rows that say by which rule their answer was read (`via`) are graded again only where
    that was no mark; older ones do not, and are graded twice."""
    graded = [row for row in rows if row["status"]]
    samples = [_sample(row, task) for row in graded]
    older = [i for i, row in enumerate(graded) if row.get("via") is None]
    grades = [Grade(row["status"], row["answer"], row.get("via") or "") for row in graded]
    for i, grade in _graded(task, samples, older):
        grades[i] = grade
    lenient = list(grades)
    unmarked = [i for i, grade in enumerate(grades) if grade.via in ("", "fallback")]
    for i, grade in _graded(task, samples, unmarked, leniently=True):
        lenient[i] = grade
    # A mark that a finished completion has, a cut one has as well: strict reading needs no flag.
    strict = [_marked(grade) for grade in grades]
    return [
        {
            **{name: row[name] for name in SCHEMA.names if name in row},
            "source": source,
            "strict_answer": by_mark.answer,
            "strict_status": by_mark.status,
            "lenient_answer": anywhere.answer,
            "lenient_status": anywhere.status,
        }
        for row, by_mark, anywhere in zip(graded, strict, lenient, strict=True)
    ]


def _sample(row: Row, task: Task) -> Sample:
    question = row["question"]
    cut = row["finish_reason"] == "length"
    return Sample(row["completion"], row["reference"], cut, task.choices(question), question)


def _graded(
    task: Task, samples: Sequence[Sample], places: Sequence[int], *, leniently: bool = False
) -> Iterator[tuple[int, Grade]]:
    """The grades of the samples at `places`, each with its place."""
    chosen = [samples[i] for i in places]
    return zip(places, grading.grade(task, chosen, leniently=leniently), strict=True)


def _marked(grade: Grade) -> Grade:
    return Grade("unparseable") if grade.via == "fallback" else grade


def differs(row: Row) -> bool:
    """Whether the two readings find different answers, or judge them differently."""
    return bool(
        row["strict_answer"] != row["lenient_answer"]
        or (row["strict_status"] == "correct") != (row["lenient_status"] == "correct")
    )


def count(rows: Sequence[Row]) -> dict[str, int]:
    """How many answers there are, are right by each reading, differ, and could not be graded."""
    return {
        "n": len(rows),
        "strict": sum(row["strict_status"] == "correct" for row in rows),
        "graded": sum(row["status"] == "correct" for row in rows),
        "lenient": sum(row["lenient_status"] == "correct" for row in rows),
        "differ": sum(map(differs, rows)),
        "unknown": sum(row["status"] == "unknown" for row in rows),
    }


def rights(rows: Sequence[Row], settings: Settings) -> dict[str, dict[str, float]]:
    """How many questions each system has, and has right by each reading, where of several passes
    that do not vote each counts its part; `rows` are those of some questions of one directory of
    `eval/`. A debate is left out: its answers are counted by role."""
    counts = {}
    for system in systems.chosen(settings):
        source = f"eval/{passes.place(system, settings)}"
        answers = [r for r in rows if r["source"] == source and r["role"] == system.roles[-1]]
        if system.kind != "debate" and answers:
            questions = list(_by_question(answers))
            counts[system.name] = {"n": len(questions)} | {
                reading: sum(_right(system, samples, prefix) for samples in questions)
                for reading, prefix in _READINGS.items()
            }
    return counts


def accuracies(right: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The systems' accuracies by each reading, from the sums of their `rights`."""
    return {
        name: {"n": row["n"]} | {reading: row[reading] / row["n"] for reading in _READINGS}
        for name, row in right.items()
    }


_READINGS = {"strict": "strict_", "graded": "", "lenient": "lenient_"}


def _by_question(rows: Sequence[Row]) -> Iterator[list[Row]]:
    questions: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        questions[row["question_id"]].append(row)
    for samples in questions.values():
        yield sorted(samples, key=lambda row: row["path"])


def _right(system: System, samples: Sequence[Row], prefix: str) -> float:
    """1 or 0 for a vote; the share of the passes that are right where each stands alone."""
    if not system.voted:
        return sum(row[f"{prefix}status"] == "correct" for row in samples) / len(samples)
    winner = scoring.voted(samples[: system.votes], f"{prefix}answer")
    return float(winner[f"{prefix}status"] == "correct")
