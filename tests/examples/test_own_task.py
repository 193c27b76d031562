"""The example of a task of one's own: its questions and its grades, as a run gets them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample
from malt_jax.types import Grade

SPEC = f"{Path(__file__).parents[2]}/examples/own_task.py:TASK"


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    grading.close()


def test_its_questions_load_and_no_two_splits_share_one() -> None:
    task = tasks.get(SPEC)
    train, report = tasks.load(task, "", split="train", limit=30, seed=1)
    held_out, _ = tasks.load(task, "", split="eval", limit=30, seed=1, exclude=train)
    assert (len(train), report.kept, len(held_out)) == (30, 30, 30)
    assert not {q.text for q in train} & {q.text for q in held_out}
    for question in train:
        numbers = [int(number) for number in question.text.partition(": ")[2].split(", ")]
        assert question.answer == ", ".join(map(str, sorted(numbers)))


@pytest.mark.parametrize(
    ("completion", "truncated", "grade"),
    [
        ("10, 20, 30, 40, 50", False, Grade("correct", "10, 20, 30, 40, 50", "grader", 1.0)),
        ("10 20 30 40 50", True, Grade("correct", "10, 20, 30, 40, 50", "grader", 1.0)),
        ("So:\n10, 30, 20, 40, 50", False, Grade("wrong", "10, 30, 20, 40, 50", "grader", 0.6)),
        ("10, 20", False, Grade("wrong", "10, 20", "grader", 0.4)),
        ("10, 20", True, Grade("truncated", "", "grader", 0.4)),
        ("10, 20, 30, 40, 50, 60, 70, 80", False,
         Grade("wrong", "10, 20, 30, 40, 50, 60, 70, 80", "grader", 0.625)),
        ("I cannot sort.", False, Grade("unparseable", "", "grader", 0.0)),
    ],
)  # fmt: skip
def test_partial_credit_through_the_grading_process(
    completion: str, truncated: bool, grade: Grade
) -> None:
    sample = Sample(completion, "10, 20, 30, 40, 50", truncated)
    assert grading.grade(tasks.get(SPEC), [sample]) == [grade]


def test_a_batch_of_several_questions_keeps_its_order() -> None:
    task = tasks.get(SPEC)
    questions, _ = tasks.load(task, "", split="train", limit=20, seed=0)
    samples = [Sample(q.answer if i % 2 else "0", q.answer) for i, q in enumerate(questions)]
    assert [grade.score for grade in grading.grade(task, samples)] == [0.0, 1.0] * 10
