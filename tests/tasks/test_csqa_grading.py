"""The multiple-choice grader: letters, texts, and both."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malt_jax import tasks
from malt_jax.grading import verdict

CHOICES = (
    ("A", "bank"),
    ("B", "river bank"),
    ("C", "department store"),
    ("D", "mall"),
    ("E", "Mall"),
)
grade = partial(verdict, tasks.get("csqa"))


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("Final Answer: A", "A"),
        ("Final Answer: (A)", "A"),
        ("Final Answer: a", "A"),
        ("Final Answer: A) bank", "A"),
        ("**Final Answer: (A) bank**", "A"),
        ("Final Answer: $\\boxed{\\text{C}}$", "C"),
        ("Final Answer: Option C", "C"),
        ("Final Answer: The answer is C: department store", "C"),
        ("Final Answer: the bank.", "A"),
        ("Final Answer: the river bank", "B"),
        ("Final Answer: A department store", "C"),  # an article
        ("Final Answer: A because it is safe", "A"),
        ("Final Answer: C is right", "C"),
        ("Final Answer: (C) bank", "C"),  # the letter counts
        ("Final Answer: E", "D"),  # D and E have one text
        ("\\boxed{C}", "C"),
        ("The answer is (A). Not (B).", "A"),
        ("The correct choice is department store.", "C"),
        ("It may be (A), but I take (C)", "C"),
        ("Final Answer: bank or mall", ""),
        ("Final Answer: Z", ""),
        ("A rich man", ""),
    ],
)
def test_the_letter_read(completion: str, letter: str) -> None:
    verdict = grade(completion, "A", choices=CHOICES)
    assert verdict.answer == letter
    assert verdict.status == {"A": "correct", "": "unparseable"}.get(letter, "wrong")


def test_without_choices_letters_count_and_the_text_of_a_labelled_reference() -> None:
    assert grade("Final Answer: B", "B").status == "correct"
    assert grade("Final Answer: F", "B").status == "unparseable"
    assert grade("Final Answer: bank", "(A) bank").status == "correct"
    assert grade("Final Answer: B", "(A) bank").status == "wrong"


def test_a_truncated_completion_has_no_fallback() -> None:
    assert grade("The answer is (A)", "A", choices=CHOICES, truncated=True).status == "truncated"


def test_a_reference_that_names_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="names none"):
        grade("Final Answer: A", "F", choices=CHOICES)


@given(st.sampled_from("ABCDE"), st.sampled_from(["{}", "({})", "**{}**", "{}.", "\\text{{{}}}"]))
def test_wrappings_of_a_letter(letter: str, form: str) -> None:
    plain = grade(f"Final Answer: {letter}", letter, choices=CHOICES)
    assert plain.status == "correct"
    assert grade(f"Final Answer: {form.format(letter)}", letter, choices=CHOICES) == plain
