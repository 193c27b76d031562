"""MAWPS (Koncel-Kedziorski et al., NAACL 2016): elementary word problems from many collections."""

import re
from fractions import Fraction

from malt_jax.tasks import numeric, quantities
from malt_jax.tasks.task import Hub, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Question

_LITERAL = re.compile(r"\d+(?:\.\d+)?")
_SOLVED = re.compile(r"[xX]=([-+*/().\d]+)")
_SOLUTION = "{expression} = {value}. Final Answer: {value}"


def read_row(row: Row, solution: str = _SOLUTION) -> Question:
    """A row's question; `solution` is the form of a worked one."""
    if "input" in row:
        question, answer = "input", "target"
    elif "question" in row:
        # The hub's `result` is written for a calculator ("1_500"), `result_float` is plain.
        question, answer = "question", "result_float"
    else:
        question, answer = "original_text", "ans"
    result = answer_field(row, answer)
    worked = _worked(str(row.get("equation", "")), result, solution)
    return Question(id_field(row, "id"), text_field(row, question), result, solution=worked)


def _worked(equation: str, result: str, solution: str) -> str:
    """An equation such as "X=((22.0-14.0)/4.0)" in the form of `solution`, where `expression` is
    "(22 - 14) / 4" and `value` "2"; "" if it does not stand solved for X."""
    solved, value = _SOLVED.fullmatch(equation.replace(" ", "")), quantities.reference(result)
    if not solved or value is None:
        return ""
    spaced = re.sub(r"(?<=[\d)])([-+*/])", r" \1 ", _without_outer(solved[1]))
    plain = _LITERAL.sub(lambda number: numeric.canonical(Fraction(number[0])), spaced)
    return solution.format(expression=plain, value=value)


def _without_outer(text: str) -> str:
    """Without a pair of parentheses around the whole."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth and place < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


TASK = Task(
    name="mawps",
    hub=Hub("MU-NLPC/Calc-mawps", "default", {"train": "train", "eval": "test"}),
    answer_hint="a number",
    read_row=read_row,
    reference=quantities.reference,
    rules=quantities.rules,
)
