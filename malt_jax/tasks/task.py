"""What a benchmark is to the rest of the program: how its rows read and how answers are graded."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from malt_jax.tasks.extract import Rules, judge, judge_leniently
from malt_jax.types import Grade, Question

Choices = tuple[tuple[str, str], ...]
Row = Mapping[str, object]

# Control characters, direction overrides and halves of surrogate pairs: none belongs in a question,
# and what a person reads would not be what the model is given.
_UNREADABLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Hub(NamedTuple):
    """A dataset of the Hugging Face hub; `splits` maps "train" and "eval" to its split names."""

    path: str
    config: str | None
    splits: dict[str, str]


def nothing() -> None:
    """The warm-up of a grader that imports nothing on its way."""


def no_choices(question: str) -> Choices:
    """The choices of a question that has none."""
    return ()


@dataclass(frozen=True)
class Task:
    """One benchmark.

    `answer_hint` names the kind of answer in a prompt. `read_row` makes a question of one row of
    any published form, with an empty `id` where the form has none and the reference as published;
    it raises ValueError naming a field that is missing or of a wrong type. `reference` is the
    canonical form of a reference answer, or None if it is not one; `rules` is how completions are
    held to it, and raises ValueError for one that is not. `warm_up` imports what grading needs,
    before a limit on its time counts; `isolation` finds these two by their names. `choices` are
    those that a question's text lists.
    """

    name: str
    hub: Hub | None
    answer_hint: str
    read_row: Callable[[Row], Question]
    reference: Callable[[str, Choices], str | None]
    rules: Callable[[str, Choices], Rules]
    warm_up: Callable[[], object] = nothing
    choices: Callable[[str], Choices] = no_choices

    def grade(
        self, completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()
    ) -> Grade:
        """The verdict on a completion; `truncated` if it ran to its limit."""
        return judge(completion, self.rules(answer, choices), truncated)

    def lenient(self, completion: str, answer: str, *, choices: Choices = ()) -> Grade:
        """For audits: by an answer that need not be marked, nor the completion finished."""
        return judge_leniently(completion, self.rules(answer, choices))


def text_field(row: Row, name: str) -> str:
    """The string in `row[name]`."""
    value = _field(row, name)
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} holds {value!r:.60}; make it a string")
    return _readable(value, name)


def answer_field(row: Row, name: str) -> str:
    """The string or number in `row[name]`, as a string."""
    value = _field(row, name)
    if not isinstance(value, str | int | float):
        raise ValueError(f"field {name!r} holds {value!r:.60}; make it a string or a number")
    return _readable(str(value), name)


def id_field(row: Row, name: str) -> str:
    """The dataset's own id, or "" where the row has none."""
    value = row.get(name)
    return "" if value is None else _readable(str(value), name)


def _readable(text: str, name: str) -> str:
    if found := _UNREADABLE.search(text):
        raise ValueError(f"field {name!r} holds the character U+{ord(found[0]):04X}; remove it")
    return text


def _field(row: Row, name: str) -> object:
    if name not in row:
        raise ValueError(f"field {name!r} is missing; the row has {', '.join(row) or 'no fields'}")
    return row[name]
