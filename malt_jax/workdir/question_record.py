"""The questions that a work directory's samples are of, as `questions/SPLIT.parquet`: what they and
their grades follow from. Rows that change under the ids they had are told by it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from malt_jax.types import Question
from malt_jax.workdir import shards

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("choices", pa.list_(pa.list_(pa.string()))),  # (label, text) pairs
    ]
)
_SHOWN = 60  # letters of a value in a message


def write(path: Path, questions: Sequence[Question]) -> None:
    """Records the questions in the place of those that are recorded there."""
    shards.write(path, [_row(question) for question in questions], SCHEMA)


def check(path: Path, questions: Sequence[Question], key: str) -> None:
    """Raises ValueError naming the first question that is not as the record at `path` has it, the
    field, and both values; without a record nothing is known. `key` is the setting that the
    questions come from."""
    if not path.exists():
        return
    before = {row["question_id"]: row for row in shards.read_one(path)}
    now = {question.id: _row(question) for question in questions}
    differing = [name for name in before | now if before.get(name) != now.get(name)]
    if differing:
        first = differing[0]
        raise ValueError(
            f"{key}: {len(differing)} of {len(before)} questions are not those that "
            f"{path.parents[1]} holds samples of; the first, {first!r}: "
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
    shown = (f"{name} {_cut(before[name], now[name])}" for name in fields)
    return ", ".join(shown)


def _cut(before: Any, now: Any) -> str:
    """Both values from shortly before where they begin to differ."""
    if not isinstance(before, str):
        before, now = repr(before), repr(now)
    same = next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), 0)
    start = max(0, same - _SHOWN // 2)
    return " then, ".join(repr(_part(value, start)) for value in (before, now)) + " now"


def _part(value: str, start: int) -> str:
    part = value[start : start + _SHOWN]
    return f"{'...' * (start > 0)}{part}{'...' * (start + len(part) < len(value))}"
