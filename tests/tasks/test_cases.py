"""Completions that a grader got wrong once, with the right verdict: from files, and literals."""

import json
import os
from pathlib import Path

import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample

CASES = Path(os.environ.get("MALT_SHARED_CASES") or Path(__file__).parents[3] / "shared" / "cases")


@pytest.mark.parametrize("name", ["gsm8k", "csqa", "math"])
def test_handed_cases(name: str) -> None:
    file = CASES / "grading" / f"{name}.jsonl"
    if not file.is_file():
        pytest.skip(f"no cases: {file} is not a file; set MALT_SHARED_CASES")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    samples = [
        Sample(
            row["completion"],
            row["reference"],
            choices=tuple(map(tuple, row.get("choices", ()))),
        )
        for row in rows
    ]
    grades = grading.grade(tasks.get(name), samples)
    failed = [
        (row["completion"], row["reference"], row["right"], grade)
        for row, grade in zip(rows, grades, strict=True)
        if grade.status != row["right"]
    ]
    assert not failed, "\n".join(map(str, failed))
