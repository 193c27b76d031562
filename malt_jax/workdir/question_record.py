"""The questions that a work directory's samples are of, as `questions/SPLIT.parquet`: what they and
their grades follow from. Rows that change under the ids they had are told by it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from malt_jax.runtime import hosts
from malt_jax.types import Question
from malt_jax.workdir import run_record, shards

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("choices", pa.list_(pa.list_(pa.string()))),  # (label, text) pairs
    ]
)
# What is made of them; of any other split: eval.
_ASKED = {"train": ("trees", "datasets"), "development": ("eval/development",)}
_SHOWN = 60  # letters of a value in a message


def path(workdir: Path, split: str) -> Path:
    """Where the questions of a split are recorded."""
    return workdir / "questions" / f"{split}.parquet"


def settle(workdir: Path, split: str, questions: Sequence[Question]) -> None:
    """Compares the questions of a split with those that the samples in the work directory are of,
    and records them where there is no such sample or, of an earlier version, no record. Hosts call
    it together. Raises ValueError as `check` does."""
    holds = any(run_record.holds_files(workdir, name) for name in _ASKED.get(split, ("eval",)))
    hosts.by_first(partial(_settle, path(workdir, split), split, questions, holds))


def _settle(file: Path, split: str, questions: Sequence[Question], holds: bool) -> None:
    if holds and file.exists():
        check(file, questions, f"config.data.{'eval' if split == 'eval' else 'train'}")
    else:
        shards.write(file, [_row(question) for question in questions], SCHEMA)


def check(file: Path, questions: Sequence[Question], key: str) -> None:
    """Raises ValueError naming the first question that is not as it is recorded in `file`, the
    field, and both values. `key` is the setting that the questions come from."""
    before = {row["question_id"]: row for row in shards.read_one(file)}
    now = {question.id: _row(question) for question in questions}
    differing = [name for name in before | now if before.get(name) != now.get(name)]
    if differing:
        first = differing[0]
        raise ValueError(
            f"{key}: {len(differing)} of {len(before)} questions are not those that "
            f"{file.parents[1]} holds samples of; the first, {first!r}: "
            f"{_difference(before.get(first), now.get(first))}; give the rows of then, or name "
            "another --config.workdir"
        )


def _row(question: Question) -> dict[str, Any]:
    return {
        "question_id": question.id,
        "question": question.text,
        "reference": question.answer,
        "choices": [list(choice) for choice in question.choices],
    }


def _difference(before: dict[str, Any] | None, now: dict[str, Any] | None) -> str:
    if before is None:
        return "not there then"
    if now is None:
        return "not there now"
    fields = [name for name in before if before[name] != now[name]]
    return ", ".join(f"{name} {_cut(before[name], now[name])}" for name in fields)


def _cut(before: Any, now: Any) -> str:
    """Both values from shortly before where they begin to differ."""
    if not isinstance(before, str):
        before, now = repr(before), repr(now)
    least = min(len(before), len(now))
    same = next((i for i in range(least) if before[i] != now[i]), least)
    start = max(0, same - _SHOWN // 2)
    return " then, ".join(repr(_part(value, start)) for value in (before, now)) + " now"


def _part(value: str, start: int) -> str:
    part = value[start : start + _SHOWN]
    return f"{'...' * (start > 0)}{part}{'...' * (start + len(part) < len(value))}"
