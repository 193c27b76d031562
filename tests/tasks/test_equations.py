"""Answers that are expressions, worked out by the grader."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.test_published_data import published

from malt_jax import tasks
from malt_jax.grading import verdict
from malt_jax.tasks import equations, numeric

TASK = tasks.get("mawps_equations")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30 - 16", "14"),
        ("(4 + 50) - 4 = 99", "50"),  # what the text makes of it is not read
        ("x = 3 + 4", "7"),
        ("2 - 3 - 4", "-5"),
        ("8 / 4 / 2", "1"),
        ("2 + 3 * 4", "14"),
        ("-(2 - 5) * -3", "-9"),
        ("1,000.5 / 2.", "500.25"),
        ("$3 \u00d7 4 \u2212 10 \u00f7 5", "10"),
        ("9 \u2013 4", "5"),  # an en dash, which was read as no sign
        ("1 / 3", "1/3"),
        ("14", "14"),
        ("8 / 0", None),
        ("4 + 50) - 4", None),
        ("(4 + 50", None),
        ("3 pens", None),
        ("2 ** 3", None),
        ("__import__('os')", None),
        ("2 3", None),
        ("()", None),
        ("= ", None),
        ("1" + " + 1" * 100, None),  # longer than any answer
    ],
)
def test_the_value_of_an_expression(text: str, value: str | None) -> None:
    assert equations.read(text) == value


# Sums as text, every part in parentheses, beside their values.
_numbers = st.integers(0, 99).map(lambda n: (str(n), Fraction(n)))


def _joined(parts) -> st.SearchStrategy[tuple[str, Fraction]]:
    def join(left, sign, right) -> tuple[str, Fraction]:
        (a, x), (b, y) = left, right
        sign = sign if y else "+"  # nothing is divided by zero
        values = {"+": x + y, "-": x - y, "*": x * y, "/": x / (y or 1)}
        return f"({a} {sign} {b})", values[sign]

    return st.builds(join, parts, st.sampled_from("+-*/"), parts)


@given(st.recursive(_numbers, _joined, max_leaves=8))
def test_any_expression_has_its_value(made: tuple[str, Fraction]) -> None:
    text, value = made
    if len(text) <= equations.MAX_CHARACTERS:
        assert equations.read(text) == numeric.canonical(value)


@given(st.text("0123456789.,+-*/()= \n", max_size=120))
def test_any_text_has_a_value_or_none(text: str) -> None:
    equations.read(text)
    equations.last(text)


@pytest.mark.parametrize(
    ("completion", "status", "answer"),
    [
        ("Final Answer: 12 - 5", "correct", "7"),
        ("Final Answer: 12 + 5", "wrong", "17"),
        ("Some are gone.\n12 - 5", "correct", "7"),  # unmarked: the last line that is one
        ("Final Answer: seven", "unparseable", ""),
        ("", "unparseable", ""),
    ],
)
def test_grades_are_of_values(completion: str, status: str, answer: str) -> None:
    grade = verdict(TASK, completion, "7.0")
    assert (grade.status, grade.answer) == (status, answer)
    assert verdict(TASK, completion, "7.0", leniently=True).status == status


def test_a_line_that_was_cut_short_is_no_answer() -> None:
    assert verdict(TASK, "12 - 5", "7", truncated=True).status == "truncated"
    assert verdict(TASK, "12 - 5", "7", leniently=True).status == "correct"


def test_a_worked_solution_is_the_expression_alone() -> None:
    row = {"original_text": "?", "ans": 2.0, "equation": "X=((22.0-14.0)/4.0)"}
    assert TASK.read_row(row).solution == "Final Answer: (22 - 14) / 4"
    assert not TASK.read_row(row | {"equation": "2*x=10"}).solution


def test_how_many_published_solutions_give_their_answer() -> None:
    """The others' answers are rounded, up to whole tables, say; a warm start leaves them out."""
    questions = [TASK.read_row(row) for row in published("mawps/train.json")]
    solved = [q for q in questions if q.solution]
    right = sum(verdict(TASK, q.solution, q.answer).status == "correct" for q in solved)
    assert (len(solved), right) == (1879, 1829)
