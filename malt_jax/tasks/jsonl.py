"""Anybody's `question` and `answer` rows: numbers are graded by value, other text by wording."""

import re

from malt_jax.tasks import numeric
from malt_jax.tasks.extract import judge, marked
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


def grade(completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()) -> Grade:
    """Numeric where the reference is a number and nothing else, else equality after `normalise`.

    Without a mark the last number counts, or for text what follows the last "answer is", or else
    the last line that is not blank.

    Raises:
        ValueError: if the reference answer is blank.
    """
    truth = reference(answer)
    if truth is None:
        raise ValueError("the reference answer is blank")
    if numeric.whole(truth) is not None:
        return numeric.grade(completion, truth, truncated=truncated)
    return judge(
        completion,
        truth,
        read=normalise,
        fallback=_last_statement,
        agree=str.__eq__,
        truncated=truncated,
    )


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
)
