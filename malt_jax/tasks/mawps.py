"""MAWPS (Koncel-Kedziorski et al., NAACL 2016): elementary word problems from many collections."""

from malt_jax.tasks import numeric
from malt_jax.tasks.task import Hub, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Question


def read_row(row: Row) -> Question:
    if "input" in row:
        question, answer = "input", "target"
    elif "question" in row:
        # The hub's `result` is written for a calculator ("1_500"), `result_float` is plain.
        question, answer = "question", "result_float"
    else:
        question, answer = "original_text", "ans"
    return Question(id_field(row, "id"), text_field(row, question), answer_field(row, answer))


TASK = Task(
    name="mawps",
    hub=Hub("MU-NLPC/Calc-mawps", "default", {"train": "train", "eval": "test"}),
    answer_hint="a number",
    read_row=read_row,
    reference=numeric.reference,
    grade=numeric.grade,
    lenient=numeric.lenient,
)
