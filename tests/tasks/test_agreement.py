"""The MATH grader, math-verify alone and a PRM800K-style grader against verdicts of a person."""

import json
import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hard_cases
import prm800k
import pytest
from thinned import thinned

from malt_jax import tasks
from malt_jax.grading import Sample, grade, verdict
from malt_jax.tasks import math

MATH = tasks.get("math")


@cache
def ours(answer: str, reference: str) -> bool:
    return verdict(MATH, f"\\boxed{{{answer}}}", reference).status == "correct"


def math_verify(answer: str, reference: str) -> bool:
    from math_verify import parse, verify

    gold, given = (parse(f"${text}$", parsing_timeout=None) for text in (reference, answer))
    return bool(verify(gold, given, timeout_seconds=None))


def test_the_table_is_large_and_has_both_verdicts() -> None:
    truths = [truth for _, _, truth in hard_cases.ALL]
    assert len(truths) >= 130
    assert min(truths.count(True), truths.count(False)) >= 50
    assert len({case[:2] for case in hard_cases.ALL}) == len(truths)


@pytest.mark.parametrize(("answer", "reference", "truth"), hard_cases.ALL)
def test_the_verdict_is_the_persons(answer: str, reference: str, truth: bool) -> None:
    assert ours(answer, reference) == truth


@pytest.mark.parametrize(("answer", "reference", "truth"), hard_cases.CONVENTIONS)
def test_the_exceptions_are_exceptions(answer: str, reference: str, truth: bool) -> None:
    assert ours(answer, reference) != truth


def test_agreement_of_the_three_with_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours is right everywhere; the others show where the hard cases are hard."""
    logging.disable(logging.CRITICAL)
    graders: dict[str, Callable[[str, str], bool]] = {
        "malt_jax": ours,
        "math-verify": math_verify,
        "PRM800K-style": prm800k.grade,
    }
    counts = {}
    for name, judge in graders.items():
        verdicts = [(judge(a, b), truth) for a, b, truth in hard_cases.ALL]
        counts[name] = (
            sum(verdict == truth for verdict, truth in verdicts),
            sum(verdict and not truth for verdict, truth in verdicts),
        )
    logging.disable(logging.NOTSET)
    with capsys.disabled():
        for name, (agree, false) in counts.items():
            print(f"\n{name}: {agree} of {len(hard_cases.ALL)}, {false} falsely right", end="")
    assert counts["malt_jax"] == (len(hard_cases.ALL), 0)
    assert counts["math-verify"][1] > 10  # a planted fault of the table would show here
    assert counts["PRM800K-style"][1] < 5  # it errs on the side of refusing


RESPELLINGS: dict[str, Callable[[str], str]] = {
    "spaced": lambda t: f" {t} ",
    "displayed": lambda t: f"$$\n{t}\n$$",
    "dfrac": lambda t: t.replace("\\frac", "\\dfrac"),
    "sized brackets": lambda t: (
        t.replace("(", "\\left(").replace(")", "\\right)")
        if t.count("(") == t.count(")") and "[" not in t and "]" not in t
        else t
    ),
    "small spaces": lambda t: (
        t.replace(",", ",\\; ").replace("+", " + ").replace("=", " = ")
        if "{," not in t and not any(c.isdigit() for c in t)
        else t
    ),
    "full stop": lambda t: f"{t}.",
}


@cache
def references(folder: Path, *names: str) -> list[str]:
    """Those of MATH's files that can be read, each once."""
    rows = [json.loads(line) for name in names for line in (folder / name).read_text().splitlines()]
    return sorted({math.reference(math.read_row(row).answer) or "" for row in rows} - {""})


TEST, TRAIN = "math/test500.jsonl", "math/train4500.jsonl"


@thinned(8)
@pytest.mark.parametrize("how", RESPELLINGS)
def test_real_references_in_other_spellings(how: str, every: int, shared_data: Path) -> None:
    known = references(shared_data, TEST, TRAIN)[::every]
    assert len(known) > 200
    samples = [Sample(f"\\boxed{{{RESPELLINGS[how](t)}}}", t) for t in known]
    graded = grade(MATH, samples)
    wrong = [s for s, v in zip(samples, graded, strict=True) if v.status != "correct"]
    assert not wrong


NAMED: dict[str, str] = {
    "a sum of names": "\\boxed{{a+b = {}}}",
    "a Greek name": "\\boxed{{\\theta = {}}}",
    "a measure": "\\boxed{{\\angle ABC = {}}}",
    "a function": "\\boxed{{f(3) = {}}}",
    "an index": "\\boxed{{S_n = {}}}",
    "a word": "\\boxed{{\\text{{Area}} = {}}}",
    "an absolute value": "\\boxed{{|z| = {}}}",
    "a group": "\\boxed{{{{{}}}}}",
    "bold": "\\boxed{{\\boldsymbol{{{}}}}}",
    "about": "\\boxed{{\\approx {}}}",
    "a unit in math": "Final Answer: ${}$ cm$^2$",
    "a remark": "Final Answer: ${}$ square units, where $r=2$",
    "a sentence": "Final Answer: The value of $x$ is ${}$.",
    "Minerva": "The final answer is ${}$. I hope it is correct.",
    "said twice": "Final Answer: ${0}$ or ${0}$",
    "two boxes": "\\boxed{{{0}}}, that is \\boxed{{{0}}}.",
}


def single_values(shared_data: Path) -> list[str]:
    """A third of the references that are one value: no list, relation, word or interval."""
    plain = re.compile(r"[^,=<>&_]+")
    words = re.compile(r"\\text|\\(?:le|ge|in|cup|pm|begin)(?![a-z])|(?<![\\A-Za-z])[A-Za-z]{2,}")
    known = references(shared_data, TEST, TRAIN)
    return [t for t in known if plain.fullmatch(t) and not words.search(t)][::3]


@thinned(6)
@pytest.mark.parametrize("how", NAMED)
def test_what_stands_round_a_real_reference_is_none_of_it(
    how: str, every: int, shared_data: Path
) -> None:
    known = single_values(shared_data)
    assert len(known) > 300
    known = known[::every]
    samples = [Sample(NAMED[how].format(text), text) for text in known]
    assert not [s for s, v in zip(samples, grade(MATH, samples), strict=True) if not v.score]
    faulty = [Sample(NAMED[how].format(re.sub(r"\d", _next_digit, t, count=1)), t) for t in known]
    faulty = [s for s in faulty if re.search(r"\d", s.answer)][::4]
    grades = grade(MATH, faulty)
    assert not [s for s, v in zip(faulty, grades, strict=True) if v.status == "correct"]


def _next_digit(match: re.Match[str]) -> str:
    return str((int(match[0]) + 1) % 10)


FAULTS: dict[str, Callable[[str], str]] = {
    "first digit": lambda t: re.sub(r"\d", _next_digit, t, count=1),
    "last digit": lambda t: re.sub(r"\d(?=\D*$)", _next_digit, t),
    "sign": lambda t: f"-{t}" if t[0] not in "0(" and re.search(r"\d|^[a-z]$", t) else t,
    "end": lambda t: re.sub(r"^\((.*,.*[)\]])$", r"[\1", t),
    "order": lambda t: re.sub(r"^\(([^,]*),([^,]*)\)$", r"(\2,\1)", t),
    "one more": lambda t: f"{t}+1",
    "part": lambda t: t.partition(",")[0] if t[0] not in "([\\" else t,
}


@thinned(4)
@pytest.mark.parametrize("how", FAULTS)
def test_real_references_with_a_fault_are_wrong(how: str, every: int, shared_data: Path) -> None:
    pairs = [(FAULTS[how](t), t) for t in references(shared_data, TEST)]
    samples = [Sample(f"\\boxed{{{fault}}}", t) for fault, t in pairs if fault != t]
    assert len(samples) > 2
    if len(samples) > 100:
        samples = samples[::every]
    graded = grade(MATH, samples)
    assert {v.status for v in graded} <= {"wrong", "unparseable"}, [
        s for s, v in zip(samples, graded, strict=True) if v.status not in ("wrong", "unparseable")
    ]


@thinned(8)
def test_different_references_are_not_equal(every: int, shared_data: Path) -> None:
    """Of 4,000 pairs, evenly spread."""
    known = references(shared_data, TEST)
    samples = [Sample(f"\\boxed{{{a}}}", b) for a in known for b in known if a < b]
    samples = samples[:: every * max(1, len(samples) // 4000)]
    graded = grade(MATH, samples)
    assert not any(v.status == "unknown" for v in graded)
    equal = [(s.completion, s.answer) for s, v in zip(samples, graded, strict=True) if v.score]
    assert equal == []
