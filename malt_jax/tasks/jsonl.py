"""Anybody's `question` and `answer` rows: numbers are graded by value, other text by wording."""

import re

from malt_jax.tasks import numeric
from malt_jax.tasks.extract import Rules, judge, judge_leniently, marked
from malt_jax.tasks.task import Choices, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Grade, Question

_STATED = re.compile(r"answer\s+is:?\s*(.+)", re.IGNORECASE)
_EDGES = " \t\r\n\"'`*_.,;:!?"


def read_row(row: Row) -> Question:
    return Question(id_field(row, "id"), text_field(row, "question"), answer_field(row, "answer"))


def normalise(text: str) -> str | None:
    """Case-folded, single-spaced and without punctuation at its ends; None if nothing is left."""
    return " ".join(text.casefold().split()).strip(_EDGES) or None


def reference(answer: str, choices: Choices = ()) -> str | None:
    marks = marked(answer)
    text = marks[0][0] if marks else answer
    value = numeric.whole(text)
    return normalise(text) if value is None else numeric.canonical(value)


def rules(answer: str, choices: Choices = ()) -> Rules:
    """Those of numbers where the reference is one and nothing else, else equality after
    `normalise`. Raises ValueError if the reference is blank."""
    truth = reference(answer)
    if truth is None:
        raise ValueError("the reference answer is blank")
    if numeric.whole(truth) is not None:
        return numeric.rules(truth)
    return Rules(truth, normalise, _last_statement, _last_statement, str.__eq__)


def grade(completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()) -> Grade:
    """Grades by value or wording.

    Without a mark the last number counts, or for text what follows the last "answer is", or else
    the last line that is not blank.

    Raises:
        ValueError: if the reference answer is blank.
    """
    return judge(completion, rules(answer), truncated)


def lenient(
    completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()
) -> Grade:
    """By the last number or statement, where no mark can be read."""
    return judge_leniently(completion, rules(answer))


def _last_statement(text: str) -> str | None:
    statements = _STATED.findall(text) or text.strip().splitlines()
    return normalise(statements[-1]) if statements else None


TASK = Task(
    name="jsonl",
    hub=None,
    answer_hint="the answer alone",
    read_row=read_row,
    reference=reference,
    grade=grade,
    lenient=lenient,
)
