"""SVAMP (Patel et al., arXiv 2103.07191): elementary word problems in a body and a question."""

from malt_jax.tasks import quantities
from malt_jax.tasks.task import Hub, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Question


def read_row(row: Row) -> Question:
    text = f"{text_field(row, 'Body').strip()} {text_field(row, 'Question').strip()}"
    return Question(id_field(row, "ID"), text.strip(), answer_field(row, "Answer"))


TASK = Task(
    name="svamp",
    hub=Hub("ChilleD/SVAMP", None, {"train": "train", "eval": "test"}),
    answer_hint="a number",
    read_row=read_row,
    reference=quantities.reference,
    rules=quantities.rules,
)
