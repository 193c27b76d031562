"""The MATH grader: canonical forms, symbolic equality and its limits."""

import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malt_jax import tasks
from malt_jax.grading import verdict
from malt_jax.tasks import math
from malt_jax.types import Grade

grade = partial(verdict, tasks.get("math"))

EQUAL = [
    ("Final Answer: $\\frac12$", "0.5"),
    ("Final Answer: 1/2", "\\frac{1}{2}"),
    ("Final Answer: 5\\text{ cm}", "5"),
    ("Final Answer: 90^\\circ", "90"),
    ("Final Answer: 1,000", "1000"),
    ("Final Answer: $x = 5$.", "5"),
    ("Final Answer: $$\n\\binom{ 1 }\n{-2}\n$$", "\\binom{1}{-2}"),
    ("Final Answer: \\text{Evelyn}", "Evelyn"),
    ("Final Answer: (C)", "\\text{(C)}"),
    ("Final Answer: The answer is 7", "7"),
    ("so the answer is $x = 3$.", "3"),
    ("we get $a=1$ and then $4$.", "4"),
    ("\\boxed{3\\frac12}", "3.5"),
    ("\\boxed{\\$5.00}", "5"),
    ("\\boxed{x^2+2x+1}", "(x+1)^2"),
    ("\\boxed{\\frac{\\sqrt{3}}{3}}", "\\frac{1}{\\sqrt{3}}"),
    ("\\boxed{(3,\\pi/2)}", "\\left( 3, \\frac{\\pi}{2} \\right)"),
    ("\\boxed{2,1}", "1,2"),
]
DIFFERENT = [
    ("\\boxed{velynE}", "Evelyn"),
    ("\\boxed{[1,2)}", "[1,2]"),
    ("\\boxed{10_2}", "10"),
    ("\\boxed{(2,1)}", "(1,2)"),
    ("\\boxed{x-1}", "x+1"),
    ("\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
]


@pytest.mark.parametrize(("completion", "reference"), EQUAL)
def test_equal(completion: str, reference: str) -> None:
    assert grade(completion, reference).status == "correct"


@pytest.mark.parametrize(("completion", "reference"), DIFFERENT)
def test_different(completion: str, reference: str) -> None:
    assert grade(completion, reference).status == "wrong"


def test_symbolic_equality_off_the_main_thread() -> None:
    verdicts: list[Grade] = []
    thread = threading.Thread(target=lambda: verdicts.append(grade("\\boxed{x(x+1)}", "x^2+x")))
    thread.start()
    thread.join()
    assert [verdict.status for verdict in verdicts] == ["correct"]


def test_equal_votes_are_equal_strings() -> None:
    spellings = ["\\frac12", "$\\dfrac{1}{2}$", "0.5", "\\boxed{ 1/2 }", "x = \\tfrac{1}{2}."]
    assert {grade(f"Final Answer: {text}", "3").answer for text in spellings} == {"0.5"}


def test_truncation_and_blank_answers() -> None:
    assert grade("we get $4$", "4", truncated=True).status == "truncated"
    assert grade("I do not know", "4").status == "unparseable"
    with pytest.raises(ValueError, match="holds no answer"):
        grade("\\boxed{4}", " ")


latex = st.lists(
    st.sampled_from([*"0123x+-^{}(),. $%~\\", "\\frac", "\\text{ a}", "\\left", "\\\\", "\\%", "="])
).map("".join)


@given(latex)
def test_canonical_form_is_a_fixed_point(text: str) -> None:
    once = math.canonical(text)
    assert once is None or math.canonical(once) == once
