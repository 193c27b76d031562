"""Questions without one right answer, which a model judges by the rubric of the config.

A row has a `question` (or a `prompt`), maybe an `id`, and maybe an `answer` (or a `reference`):
what the judge is shown as a good one, or, where it states a preference, compares with.
"""

from malt_jax.config.judging import JudgeSettings
from malt_jax.tasks.task import (
    Choices,
    Judged,
    Row,
    Task,
    answer_field,
    as_written,
    id_field,
    text_field,
)
from malt_jax.types import Question

NO_REFERENCE = "-"


def read_row(row: Row) -> Question:
    """The question of a row."""
    text = text_field(row, "question" if "question" in row or "prompt" not in row else "prompt")
    name = "answer" if "answer" in row else "reference"
    given = answer_field(row, name) if row.get(name) else ""
    return Question(id_field(row, "id"), text, given.strip() or NO_REFERENCE)


def compared(answer: str, choices: Choices = ()) -> str | None:
    """A row's answer, where the judge compares with it; None if there is none."""
    return None if answer == NO_REFERENCE else as_written(answer)


TASK = Task(
    name="judge",
    judged=Judged(JudgeSettings()),
    answer_hint="the answer alone",
    read_row=read_row,
)
