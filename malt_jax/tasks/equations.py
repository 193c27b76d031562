"""MAWPS and SVAMP answered by an expression that the grader works out: "(12 - 5) * 3" is 21.

For models that set a problem up better than they reckon. Where right expressions are miscomputed
as often as not, half of a tree's rewards are noise, and there is little for a team to learn.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from malt_jax.tasks import mawps, numeric, svamp
from malt_jax.tasks.extract import Rules, judge, judge_leniently
from malt_jax.tasks.task import Choices, Row
from malt_jax.types import Grade, Question

MAX_CHARACTERS = 100
_TOKEN = re.compile(r"\s*(\d[\d,]*(?:\.\d+)?|\.\d+|[-+*/()])")
_SIGNS = str.maketrans({"\u00f7": "/", "\u00d7": "*", "\u2212": "-", "$": None})
_MARK = "Final Answer: "


def read(text: str) -> str | None:
    """The canonical value of the first side of an equation that is an expression of numbers, the
    four operations and parentheses: of "x = 3 + 4 = 8" that is 7, for a sum that the text works out
    is not read."""
    sides = text.translate(_SIGNS).strip().removesuffix(".").split("=")
    return next((found for side in sides if (found := _value(side))), None)


def last(text: str) -> str | None:
    """Of the last line that has one: the fallback for an unmarked answer."""
    lines = reversed(text.splitlines())
    return next((found for line in lines if (found := read(line))), None)


def rules(answer: str) -> Rules:
    """How expressions are held to a reference. Raises ValueError if that is no number."""
    return numeric.rules(answer)._replace(read=read, fallback=last, anywhere=last)


def grade(completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()) -> Grade:
    """Grades a completion by the value of its expression. Raises ValueError if the reference answer
    is not a number."""
    return judge(completion, rules(answer), truncated)


def lenient(
    completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()
) -> Grade:
    """By the last expression that has a line of its own, where no mark can be read."""
    return judge_leniently(completion, rules(answer))


def read_mawps(row: Row) -> Question:
    """A row of MAWPS, its worked solution without the result."""
    question = mawps.read_row(row)
    expression, equals, _ = question.solution.partition(" = ")
    return replace(question, solution=_MARK + expression if equals else "")


def _value(text: str) -> str | None:
    if len(text) > MAX_CHARACTERS:
        return None
    tokens, end = [], 0
    while match := _TOKEN.match(text, end):
        tokens.append(match[1])
        end = match.end()
    if text[end:].strip():
        return None
    left = iter([*tokens, ""])
    try:
        value, after = _sum(next(left), left)
    except (ValueError, ZeroDivisionError):
        return None
    return None if after else numeric.canonical(value)


def _sum(token: str, left: Iterator[str]) -> tuple[Fraction, str]:
    """The value of a sum that begins with `token`, and the token after it. Raises ValueError where
    there is none."""
    value, token = _product(token, left)
    while token in ("+", "-"):
        term, after = _product(next(left), left)
        value, token = value + (term if token == "+" else -term), after
    return value, token


def _product(token: str, left: Iterator[str]) -> tuple[Fraction, str]:
    value, token = _factor(token, left)
    while token in ("*", "/"):
        factor, after = _factor(next(left), left)
        value, token = value * factor if token == "*" else value / factor, after
    return value, token


def _factor(token: str, left: Iterator[str]) -> tuple[Fraction, str]:
    if token == "-":
        value, after = _factor(next(left), left)
        return -value, after
    if token == "(":
        value, after = _sum(next(left), left)
        if after != ")":
            raise ValueError("a parenthesis is not closed")
        return value, next(left)
    return Fraction(token.replace(",", "")), next(left)


MAWPS = replace(
    mawps.TASK,
    name="mawps_equations",
    answer_hint="an arithmetic expression",
    read_row=read_mawps,
    grade=grade,
    lenient=lenient,
)
SVAMP = replace(
    svamp.TASK,
    name="svamp_equations",
    answer_hint="an arithmetic expression",
    grade=grade,
    lenient=lenient,
)
