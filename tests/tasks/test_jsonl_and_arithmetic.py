"""The grader of anybody's file, the generated task, and the table of tasks."""

from functools import partial

import pytest

from malt_jax import tasks
from malt_jax.grading import verdict
from malt_jax.tasks import arithmetic

NAMES = ["gsm8k", "math", "csqa", "mawps", "svamp", "arithmetic", "jsonl"]
NAMES += ["mawps_equations", "svamp_equations"]


@pytest.mark.parametrize("name", NAMES)
def test_get(name: str) -> None:
    task = tasks.get(name)
    assert task.name == name
    assert task.answer_hint
    assert task.hub is None or set(task.hub.splits) == {"train", "eval"}


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.task.*gsm9k.*gsm8k, math"):
        tasks.get("gsm9k")


@pytest.mark.parametrize(
    ("completion", "reference", "status", "answer"),
    [
        ("Final Answer: Paris.", "paris", "correct", "paris"),
        ("Final Answer: New  York", "new york", "correct", "new york"),
        ("I think the answer is: Rome", "Rome", "correct", "rome"),
        ("Let me see.\nRome\n", "Rome", "correct", "rome"),
        ("Final Answer: $3.00", "3", "correct", "3"),
        ("She has 3", "3", "correct", "3"),
        ("Final Answer: 3", "3 blind mice", "wrong", "3"),
        ("Final Answer: 3 Blind Mice", "3 blind mice", "correct", "3 blind mice"),
        ("", "Rome", "unparseable", ""),
    ],
)
def test_jsonl_grades_numbers_by_value_and_text_by_wording(
    completion: str, reference: str, status: str, answer: str
) -> None:
    judged = verdict(tasks.get("jsonl"), completion, reference)
    assert (judged.status, judged.answer) == (status, answer)


def test_jsonl_truncation() -> None:
    grade = partial(verdict, tasks.get("jsonl"))
    assert grade("the answer is Rome", "Rome", truncated=True).status == "truncated"
    assert grade("Final Answer: Rome", "Rome", truncated=True).status == "correct"


def test_arithmetic_values() -> None:
    assert arithmetic.value("47+38-12") == 73
    assert arithmetic.value("1-99+3") == -95


def test_arithmetic_questions_are_pure_distinct_and_right() -> None:
    questions = arithmetic.generate(200, 3, "train")
    assert questions == arithmetic.generate(200, 3, "train")
    assert questions[:50] == arithmetic.generate(50, 3, "train")
    assert questions != arithmetic.generate(200, 4, "train")
    assert len({q.text for q in questions}) == len({q.id for q in questions}) == 200
    for question in questions:
        assert question.text.count("+") + question.text.count("-") == arithmetic.OPERANDS - 1
        # Python's own grammar is the oracle; the text holds digits and signs alone.
        assert set(question.text) <= set("0123456789+-")
        assert int(question.answer) == eval(question.text)


def test_arithmetic_splits_never_meet() -> None:
    train = {q.text for seed in range(5) for q in arithmetic.generate(300, seed, "train")}
    held_out = {q.text for seed in range(5) for q in arithmetic.generate(300, seed, "eval")}
    assert not train & held_out
    assert {arithmetic.split_of(text) for text in held_out} == {"eval"}


def test_arithmetic_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        arithmetic.generate(10**9, 0, "eval")
