"""GSM8K (Cobbe et al., arXiv 2110.14168): word problems of a few steps; solutions end "#### N"."""

import re

from malt_jax.tasks import quantities
from malt_jax.tasks.task import Hub, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Question

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def read_row(row: Row) -> Question:
    answer = answer_field(row, "answer")
    work, _, result = answer.rpartition("####")
    steps = _CALCULATOR.sub("", work).strip()
    solution = f"{steps}\nFinal Answer: {result.strip()}" if steps else ""
    return Question(id_field(row, "id"), text_field(row, "question"), answer, solution=solution)


TASK = Task(
    name="gsm8k",
    hub=Hub("openai/gsm8k", "main", {"train": "train", "eval": "test"}),
    answer_hint="a number",
    read_row=read_row,
    reference=quantities.reference,
    rules=quantities.rules,
)
