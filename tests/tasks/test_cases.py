"""Completions that a grader got wrong once, with the right verdict: from files, and literals."""

import json
import os
from pathlib import Path

import pytest
import wild_cases

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


def statuses(name: str, samples: list[Sample]) -> list[str]:
    return [grade.status for grade in grading.grade(tasks.get(name), samples)]


def failures(name: str, samples: list[Sample], right: str) -> list[Sample]:
    return [s for s, v in zip(samples, statuses(name, samples), strict=True) if v != right]


def test_numbers() -> None:
    assert not failures("gsm8k", [Sample(*case) for case in wild_cases.GSM8K], "correct")


def test_letters() -> None:
    samples = [Sample(*case, choices=wild_cases.CHOICES) for case in wild_cases.CSQA]
    assert not failures("csqa", samples, "correct")
    # A list of the choices names none; of two that are named the first counts.
    listed = "\n".join(f"{letter}) {text}" for letter, text in wild_cases.CHOICES)
    assert statuses("csqa", [Sample(listed, "E", choices=wild_cases.CHOICES)]) == ["unparseable"]
    assert statuses(
        "csqa", [Sample("Final Answer: (A) or (B)", "B", choices=wild_cases.CHOICES)]
    ) == ["wrong"]


def test_formulas() -> None:
    assert not failures("math", [Sample(*case) for case in wild_cases.MATH], "correct")
    assert not failures("math", [Sample(*case) for case in wild_cases.MATH_WRONG], "wrong")


@pytest.mark.parametrize("value", ["7", "\\frac{3}{4}", "2\\sqrt{3}", "0", "-5", "3\\pi"])
def test_a_name_before_a_value_is_none_of_it(value: str) -> None:
    samples = [Sample(f"\\boxed{{{name} = {value}}}", value) for name in wild_cases.NAMES]
    assert not failures("math", samples, "correct")
    others = [Sample(f"\\boxed{{{name} = 8}}", value) for name in wild_cases.NAMES]
    assert not failures("math", others, "wrong")


def test_a_completion_goes_on_to_a_question_only_after_its_answer() -> None:
    restated = "Question: What is 9*2?\nIt is 18.\nQuestion: so what?\nFinal Answer: 18"
    assert statuses("gsm8k", [Sample(restated, "18")]) == ["correct"]
    for asked in ("Question", "Problem", "**Q2**", "### Problem 3", "User"):
        text = f"Final Answer: 18\n\n{asked}: What is 3+4?\n\nFinal Answer: 7"
        assert statuses("gsm8k", [Sample(text, "18")]) == ["correct"]
