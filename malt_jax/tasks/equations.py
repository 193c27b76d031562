"""MAWPS and SVAMP answered by an expression that the grader works out: "(12 - 5) * 3" is 21.

For models that set a problem up better than they reckon. Where right expressions are miscomputed
as often as not, half of a tree's rewards are noise, and there is little for a team to learn.
"""

import operator
import re
from dataclasses import replace
from fractions import Fraction

from malt_jax.tasks import mawps, numeric, quantities, svamp
from malt_jax.tasks.extract import Rules
from malt_jax.tasks.task import Choices, Row, Task
from malt_jax.types import Question

MAX_CHARACTERS = 100
_TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+|[-+*/()]")
_SIGNS = str.maketrans(
    {**dict.fromkeys(numeric.DASHES, "-"), "\u00f7": "/", "\u00d7": "*", "$": None}
)
# By how closely they bind.
_OPERATIONS = (
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv},
)


def read(text: str) -> str | None:
    """The canonical value of the first side of an equation that is an expression of numbers, the
    four operations and parentheses: of "x = 3 + 4 = 8" that is 7, for a sum that the text works out
    is not read."""
    sides = text.translate(_SIGNS).strip().removesuffix(".").split("=")
    return next(filter(None, map(_value, sides)), None)


def last(text: str) -> str | None:
    """Of the last line that has one: the fallback for an unmarked answer."""
    return next(filter(None, map(read, reversed(text.splitlines()))), None)


def rules(answer: str, choices: Choices = ()) -> Rules:
    """How expressions are held to this reference. Raises ValueError if that is no number."""
    return quantities.rules(answer)._replace(read=read, fallback=last, anywhere=last)


def read_mawps(row: Row) -> Question:
    """A row of MAWPS, its worked solution without the result."""
    return mawps.read_row(row, "Final Answer: {expression}")


def _value(text: str) -> str | None:
    if len(text) > MAX_CHARACTERS:
        return None
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != "".join(text.split()):  # something stands between them
        return None
    left = ["", *reversed(tokens)]  # the next one last; the empty one is no number
    try:
        value = _operated(left)
    except (ValueError, ZeroDivisionError):
        return None
    return None if left != [""] else numeric.canonical(value)


def _operated(left: list[str], level: int = 0) -> Fraction:
    """The value of what the tokens `left` begin with, up to an operation that binds less closely
    than those of `level`; its tokens are taken. Raises ValueError where there is none."""
    if level == len(_OPERATIONS):
        return _factor(left)
    value = _operated(left, level + 1)
    while operation := _OPERATIONS[level].get(left[-1]):
        left.pop()
        value = operation(value, _operated(left, level + 1))
    return value


def _factor(left: list[str]) -> Fraction:
    token = left.pop()
    if token == "-":
        return -_factor(left)
    if token == "(":
        value = _operated(left)
        if left.pop() != ")":
            raise ValueError("a parenthesis is not closed")
        return value
    return Fraction(token.replace(",", ""))


def _by_expression(task: Task) -> Task:
    name = f"{task.name}_equations"
    return replace(task, name=name, answer_hint="an arithmetic expression", rules=rules)


TASKS = (replace(_by_expression(mawps.TASK), read_row=read_mawps), _by_expression(svamp.TASK))
