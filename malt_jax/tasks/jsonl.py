"""Anybody's `question` and `answer` rows: numbers are graded by value, other text by wording."""

import re

from malt_jax.tasks import numeric, quantities
from malt_jax.tasks.extract import Rules, marked
from malt_jax.tasks.task import Choices, Task

_STATED = re.compile(r"answer\s+is:?\s*(.+)", re.IGNORECASE)
_EDGES = " \t\r\n\"'`*_.,;:!?"


def normalise(text: str) -> str | None:
    """Case-folded, single-spaced and without punctuation at its ends; None if nothing is left."""
    return " ".join(text.casefold().split()).strip(_EDGES) or None


def reference(answer: str, choices: Choices = ()) -> str | None:
    marks = marked(answer)
    text = marks[0][0] if marks else answer
    value = numeric.whole(text)
    return normalise(text) if value is None else numeric.canonical(value)


def rules(answer: str, choices: Choices = ()) -> Rules:
    """Those of numbers where the reference is one and nothing else. Else equality after
    `normalise`; without a mark what follows the last "answer is" counts, or the last line that is
    not blank. Raises ValueError if the reference is blank."""
    truth = reference(answer)
    if truth is None:
        raise ValueError("the reference answer is blank")
    if numeric.whole(truth) is not None:
        return quantities.rules(truth)
    return Rules(truth, normalise, _last_statement, _last_statement, str.__eq__)


def _last_statement(text: str) -> str | None:
    statements = _STATED.findall(text) or text.strip().splitlines()
    return normalise(statements[-1]) if statements else None


TASK = Task(
    name="jsonl",
    reference=reference,
    rules=rules,
)
