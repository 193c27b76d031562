"""Any text against any text: a verdict comes, and never a right one for another number."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from malt_jax import grading, tasks
from malt_jax.grading import Sample
from malt_jax.tasks import extract
from malt_jax.tasks.rows import MAX_LINE

# mawps, svamp and arithmetic have gsm8k's grader.
NUMERIC = ("gsm8k", "jsonl", "math", "svamp_equations")
VERDICTS = {"correct", "wrong", "unparseable", "truncated", "unknown"}
CHOICES = (("A", "bank"), ("B", "river bank"), ("C", "mall"))
# Pieces that mean something to one of the graders, between any characters.
PIECES = [
    "Final Answer:",
    "answer is",
    "\\boxed{",
    "}",
    "####",
    "$",
    "\\frac{1}{2}",
    "18",
    "-",
    "(",
]
PIECES += ["\n", " ", "1/", "e9", "10^", "^", ",000", "(A)", "x=", "\\text{", "\\pm", "½", "٣"]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=8).map("".join)


def graded(name: str, sample: Sample) -> str:
    """The verdict by a task, the audit's reading tried as well. What may take any time is graded
    where it can be stopped."""
    task = tasks.get(name)
    if name == "math":
        (grade,) = grading.grade(task, [sample])
    else:
        completion, answer, truncated, choices, _ = sample
        for leniently in (True, False):
            grade = grading.verdict(
                task,
                completion,
                answer,
                truncated=truncated,
                choices=choices,
                leniently=leniently,
            )
            assert grade.status in VERDICTS
    assert bool(grade.answer) == (grade.status in {"correct", "wrong"})
    return grade.status


def against(name: str, completion: str, reference: str, truncated: bool) -> None:
    """A reference that is none is dropped with its row, by name; every other gives a verdict."""
    choices, task = CHOICES if name == "csqa" else (), tasks.get(name)
    truth = task.reference(reference, choices)
    sample = Sample(completion, reference if truth is None else truth, truncated, choices)
    if truth is None or task.reference(truth, choices) is None:
        with pytest.raises(ValueError, match="answer"):
            graded(name, sample)
    else:
        assert graded(name, sample) in VERDICTS


@pytest.mark.parametrize("name", ["gsm8k", "jsonl", "csqa", "svamp_equations"])
@settings(max_examples=100)
@given(completion=texts, reference=texts, truncated=st.booleans())
def test_any_text_against_any_reference(name: str, completion, reference, truncated) -> None:
    against(name, completion, reference, truncated)


@settings(max_examples=25)  # some take the two seconds that they are given
@given(completion=texts, reference=texts, truncated=st.booleans())
def test_any_text_against_any_formula(completion, reference, truncated) -> None:
    against("math", completion, reference, truncated)


def test_a_reference_that_reads_as_none_the_second_time_costs_its_row(tmp_path: Path) -> None:
    """Grading, which reads it again, ended the run."""
    path = tmp_path / "q.jsonl"
    rows = [{"question": "a?", "answer": "Final Answer:####"}, {"question": "b?", "answer": 1}]
    path.write_text("\n".join(map(json.dumps, rows)))
    kept, report = tasks.load(tasks.get("jsonl"), str(path), split="train")
    assert [question.text for question in kept] == ["b?"]
    assert [reason for _, reason in report.dropped] == ["unparseable_answer"]


numbers = st.integers(-(10**6), 10**6) | st.decimals(-1000, 1000, places=2)


@pytest.mark.parametrize("name", NUMERIC)
@settings(max_examples=60)
@given(before=texts, truth=numbers, other=numbers, truncated=st.booleans())
def test_another_number_is_never_right(name: str, before, truth, other, truncated) -> None:
    """Whatever was written before the last mark, the number behind it is the answer."""
    assume(truth != other)
    reference = tasks.get(name).reference(str(truth), ())
    marked = f"{before}\nFinal Answer: {other}"
    assert graded(name, Sample(marked, reference, truncated)) == "wrong"
    same = f"{before}\nFinal Answer: {truth}"
    assert graded(name, Sample(same, reference, truncated)) == "correct"


@given(texts, st.sampled_from("ABC"), st.sampled_from("ABC"))
def test_another_letter_is_never_right(before: str, truth: str, other: str) -> None:
    sample = Sample(f"{before}\nFinal Answer: ({other})", truth, False, CHOICES)
    assert graded("csqa", sample) == ("correct" if truth == other else "wrong")


@given(texts, st.from_regex(r"[0-9a-z+ ]{1,9}", fullmatch=True))
def test_what_is_marked_last_is_found(before: str, answer: str) -> None:
    assert extract.boxed(f"{before} \\boxed{{{answer}}}") == answer.strip()
    assume(answer.strip())
    (stated, rule), *_ = extract.marked(f"{before}\nFinal Answer: {answer}")
    assert (stated, rule) == (answer.strip(), "final_answer")


LINES = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["id", "question", "answer"]), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=150)
@given(st.lists(LINES, max_size=4))
def test_any_lines_are_questions_or_have_a_reason(tmp_path_factory, lines: list[bytes]) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    good = b'{"question": "What is 1+1?", "answer": 2}'
    content = b"\n".join([good, *lines])
    path.write_bytes(content)
    kept, report = tasks.load(tasks.get("jsonl"), str(path), split="train")
    assert kept[0].answer == "2" or len(kept) > 1
    assert report.read == report.kept + len(report.dropped)
    assert report.read == sum(bool(line.strip()) for line in content.split(b"\n"))
    assert all(why and len(why) < 500 for _, why, _ in report.quarantined)
    assert len(content) < MAX_LINE
