"""What a benchmark is to the rest of the program: how its rows read and how answers are graded."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from malt_jax.config.judging import JudgeSettings, RewardSettings
from malt_jax.tasks.extract import Rules
from malt_jax.tasks.program import ALL_TESTS, Program, Running
from malt_jax.types import Question

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


class Judged(NamedTuple):
    """Who judges a task's answers, and the work directory in which the verdicts are kept."""

    settings: JudgeSettings
    workdir: str = ""


PLAIN_REWARD = RewardSettings()


def nothing() -> None:
    """The warm-up of a grader that imports nothing on its way."""


def no_choices(question: str) -> Choices:
    """The choices of a question that has none."""
    return ()


def question_and_answer(row: Row) -> Question:
    """The question of a row that has the fields `question` and `answer`, and maybe an `id`."""
    return Question(id_field(row, "id"), text_field(row, "question"), answer_field(row, "answer"))


def as_written(answer: str, choices: Choices = ()) -> str | None:
    """A reference without the blanks around it, or None if nothing else is there."""
    return answer.strip() or None


@dataclass(frozen=True)
class Task:
    """One benchmark: `Task("mine", rules=rules)` or `Task("mine", grade=grade)` is one already.

    Questions. `read_row` makes a question of one row of any published form, with an empty `id`
    where the form has none and the reference as published; it raises ValueError naming a field
    that is missing or of a wrong type. Where no data set is named, rows come from `hub`. A task
    with `generate` makes its questions instead: `generate(n, seed, split)` gives the first n of
    the sequence that (seed, split) fixes, of "train" or "eval". `reference` is the canonical form
    of a reference answer, or None if it is not one; a question whose reference is None or blank is
    left out. `choices` are those that a question's text lists. `answer_hint` names the kind of
    answer in a prompt.

    Grading is one of four. `rules` says how completions are held to a reference, and raises
    ValueError for one that it cannot read. `grade(completions, questions)` scores a batch instead:
    a float in [0, 1] for each completion, 1 for a right one, NaN for no verdict; `answer` is then
    what a vote counts of a completion (as a rule the marked answer, else the last line).
    `program(completion, reference, question)` is the program that a completion holds, with its
    tests, or None: it is run in a sandbox, as `running` says. Votes then count programs that behave
    alike, and `answer` is what a person is shown of a completion. `judged` has a model judge.
    `reward` says what else a score weighs.
    `warm_up` imports what grading needs, before a limit on its time counts. Grading happens in
    another process, which finds these functions by their names: each stands in a module, outside
    of functions and classes.

    Raises:
        ValueError: unless there is one of `rules`, `grade`, `program` and `judged`.
    """

    name: str
    rules: Callable[[str, Choices], Rules] | None = None
    grade: Callable[[Sequence[str], Sequence[Question]], Sequence[float]] | None = None
    program: Callable[[str, str, str], Program | None] | None = None
    answer: Callable[[str], str] | None = None
    running: Running = ALL_TESTS
    judged: Judged | None = None
    reward: RewardSettings = PLAIN_REWARD
    hub: Hub | None = None
    answer_hint: str = "the answer alone"
    read_row: Callable[[Row], Question] = question_and_answer
    generate: Callable[[int, int, str], list[Question]] | None = None
    reference: Callable[[str, Choices], str | None] = as_written
    choices: Callable[[str], Choices] = no_choices
    warm_up: Callable[[], object] = nothing

    def __post_init__(self) -> None:
        ways = (self.rules, self.grade, self.program, self.judged)
        if sum(way is not None for way in ways) != 1:
            raise ValueError(f"task {self.name!r}: give one of rules, grade, program and judged")
        if self.answer is not None and self.rules is not None:
            raise ValueError(f"task {self.name!r}: rules find the answer; leave out answer")


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
    if bad := _UNREADABLE.search(text):
        raise ValueError(f"field {name!r} holds the character U+{ord(bad[0]):04X}; remove it")
    return text


def _field(row: Row, name: str) -> object:
    if name not in row:
        raise ValueError(f"field {name!r} is missing; the row has {', '.join(row) or 'no fields'}")
    return row[name]
