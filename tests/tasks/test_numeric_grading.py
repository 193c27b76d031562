"""The numeric grader: a table of hard cases worked out by hand, and properties."""

from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malt_jax import tasks
from malt_jax.grading import verdict
from malt_jax.tasks import numeric, quantities
from malt_jax.types import Grade

grade = partial(verdict, tasks.get("gsm8k"))

EIGHTEEN = [
    ("Final Answer: 18", "final_answer"),
    ("final answer: **18.0**", "final_answer"),
    ("**Final Answer:** $18.", "final_answer"),
    ("**Final Answer: 18**", "final_answer"),
    ("### Final Answer is: 18 dollars", "final_answer"),
    ("Final Answer:\n\n18", "final_answer"),
    ("Final Answer: 17\nNo. Final Answer: 18", "final_answer"),
    ("Final Answer: $\\boxed{18}$", "final_answer"),
    ("Final Answer: \\(18\\)", "final_answer"),
    ("Final Answer: \\text{18 apples}", "final_answer"),
    ("Final Answer: 36/2", "final_answer"),
    ("Final Answer: \\dfrac{36}{2}", "final_answer"),
    ("Final Answer: 17 2/2", "final_answer"),
    ("Final Answer: 1.8e1", "final_answer"),
    ("Final Answer: 1.8 \\times 10^{1}", "final_answer"),
    ("Final Answer: 0.18 × 10²", "final_answer"),
    ("Final Answer: 18%", "final_answer"),
    ("Final Answer: \\$18", "final_answer"),
    ("Final Answer: €18,00", "final_answer"),
    ("Final Answer: 18 cm^2", "final_answer"),
    ("Final Answer: - 18 eggs", "final_answer"),  # a bullet, since the minus stands apart
    ("Final Answer: 3 + 15 = 18", "final_answer"),
    ("Final Answer: The total of 3 boxes is 18", "final_answer"),
    ("Final Answer: 18 dollars for 9 eggs", "final_answer"),
    ("Final Answer: 18 (9 eggs at $2)", "final_answer"),
    ("Final Answer: 18 or 19", "final_answer"),
    ("Final Answer: unknown, but \\boxed{17} then \\boxed{18}", "final_answer"),
    ("Final Answer: see above\n\\boxed{18}", "boxed"),
    ("So \\boxed{17}, or rather \\fbox{18}.", "boxed"),
    ("He has <<9*2=18>>18 left.\n#### 18", "hashes"),
    ("#### Step 7\nIt comes to 18.", "fallback"),
    ("In 2 hours she makes $18", "fallback"),
    ("The area is 18 cm^2.", "fallback"),
]
NOT_EIGHTEEN = [
    ("Final Answer: 3 apples and 18 pears", "3"),
    ("Final Answer: 17½", "17.5"),
    ("Final Answer: \u221218", "-18"),
    ("Final Answer: -$18", "-18"),
    ("Final Answer: $-18", "-18"),
    ("Final Answer: 18.5", "18.5"),
    ("Final Answer: 1,800", "1800"),
    ("Final Answer: -\\frac{1}{3}", "-1/3"),
    ("18 it is. Final Answer: 19", "19"),
]
UNREADABLE = [
    "",
    "I cannot say.",
    "Final Answer: X",
    "It is 18. Final Answer: eighteen",
    "Final Answer: 18/0",
    "Final Answer: 1e999999999",
    "Final Answer: " + "9" * 5000,
    "Final Answer: ",
]


@pytest.mark.parametrize(("completion", "via"), EIGHTEEN)
def test_spellings_of_eighteen(completion: str, via: str) -> None:
    verdict = grade(completion, "18")
    assert (verdict.status, verdict.answer, verdict.via) == ("correct", "18", via)


@pytest.mark.parametrize(("completion", "answer"), NOT_EIGHTEEN)
def test_other_numbers(completion: str, answer: str) -> None:
    verdict = grade(completion, "18")
    assert (verdict.status, verdict.answer) == ("wrong", answer)


@pytest.mark.parametrize("completion", UNREADABLE)
def test_unreadable(completion: str) -> None:
    assert grade(completion, "18") == Grade("unparseable")


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("She has 18 and then", "truncated"),
        ("She has 18. Final Answer:", "truncated"),
        ("She has 18. Final Answer: 18", "correct"),
        ("So \\boxed{18}. But wait, 19", "correct"),
        ("So \\boxed{18", "truncated"),
        ("Thus, the answer is \\(18\\).\n\nLet's verify: 9 *", "correct"),
        ("The answer is **18.** Check: 2 *", "correct"),
        ("Answer: 18\nCheck: 20", "correct"),
        ("The answer is 18.", "truncated"),  # or 18.5
        ("The answer is 18 times", "truncated"),
        ("The answer is not 18. It", "truncated"),
        ("The answer is 17. No, the answer is 18", "truncated"),
        ("The answer is 17. So", "wrong"),
    ],
)
def test_of_a_truncated_completion_what_is_said_to_the_end_counts(
    completion: str, status: str
) -> None:
    assert grade(completion, "18", truncated=True).status == status


@pytest.mark.parametrize("reference", ["18", "18.0", "$18", "18 dollars", "x = 9\n#### 18"])
def test_spellings_of_the_reference(reference: str) -> None:
    assert grade("Final Answer: 18", reference).status == "correct"


@pytest.mark.parametrize("reference", ["", "many", "3 to 5"])
def test_a_reference_that_is_no_number_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        grade("Final Answer: 18", reference)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("2/3", "0.6666666667", True),
        ("0.667", "0.6666666667", True),
        ("0.67", "0.6666666667", False),
        ("1/3", "0.3333", True),
        ("10.33", "10.333333333333334", True),
        ("1235", "1234.5678", False),
        ("0.8751", "0.875", False),
        ("18.01", "18", False),
    ],
)
def test_only_rounded_references_have_a_tolerance(answer: str, reference: str, same: bool) -> None:
    assert (grade(f"Final Answer: {answer}", reference).status == "correct") == same


fractions = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=1000)
words = st.text(st.sampled_from("abc xyz\n"), max_size=30)


@given(fractions)
def test_a_canonical_number_reads_as_itself(value: Fraction) -> None:
    text = numeric.canonical(value)
    assert numeric.whole(text) == value
    assert quantities.read(text) == quantities.reference(text) == quantities.last(text) == text
    assert Fraction(text) == value


@given(fractions, fractions)
def test_equal_strings_mean_equal_values(a: Fraction, b: Fraction) -> None:
    assert (numeric.canonical(a) == numeric.canonical(b)) == (a == b)


@given(st.integers(-(10**6), 10**6), words, words, st.sampled_from(["18", "-3", "0.25"]))
def test_text_around_a_marked_answer_does_not_change_the_verdict(
    value: int, before: str, after: str, reference: str
) -> None:
    plain = grade(f"Final Answer: {value}", reference)
    assert grade(f"{before}\nFinal Answer: {value}\n{after}", reference) == plain


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    assert grade(text, "18").status in ("correct", "wrong", "unparseable")
    assert grade(f"Final Answer: {text}", "18").status in ("correct", "wrong", "unparseable")
