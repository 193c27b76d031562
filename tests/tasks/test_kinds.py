"""Ways of stating an answer, round real references: what is right is right, what only looks like it
is not, and no verdict is worse than math-verify's where that one is right."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import answer_kinds as kinds
import pytest
from wild_cases import CHOICES

from malt_jax import grading, tasks
from malt_jax.grading import Sample
from malt_jax.tasks import extract, math

NUMBERS = ("18", "1200", "7", "1000000", "-5", "0.25")


def references(shared_data: Path) -> list[str]:
    files = [shared_data / "math" / name for name in ("test500.jsonl", "train4500.jsonl")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    boxed = (extract.boxed(row["solution"]) or "" for row in rows)
    return sorted({text for text in boxed if math.reference(text)})


def values(texts: Sequence[str]) -> list[str]:
    """References that are one value: no list, relation, word, interval, nor 17, 0 or 1."""
    plain = re.compile(r"[^,=<>&_]+")
    words = re.compile(r"\\(?:text|le|ge|in|cup|pm|begin)(?![a-z])|(?<![\\A-Za-z])[A-Za-z]{2,}|\.$")
    chosen = [text for text in texts if plain.fullmatch(text) and not words.search(text)]
    return [text for text in chosen if math.canonical(text) not in ("0", "1", "-1", "17")]


def math_samples(shared_data: Path, per_kind: int) -> list[tuple[Sample, bool]]:
    """Of every kind `each` references, and half as many with a fault."""
    every = references(shared_data)
    single = values(every)
    numbers = [text for text in single if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-z]+", "", text))]
    by_kind: list[tuple[list[str], list[str], bool]] = [
        (kinds.VALUES, single, True),
        (kinds.ANY, every, True),
        (kinds.NOT_VALUES, numbers, False),
        (kinds.NOT_ANY, [text for text in every if math.canonical(text) != "17"], False),
    ]
    rng = random.Random(0)
    samples = []
    for templates, answers, right in by_kind:
        for kind in templates:
            fitting = [text for text in answers if _fits(kind, text)]
            for text in rng.sample(fitting, per_kind):
                samples.append((Sample(kinds.said(kind, text), text), right))
                if right and kinds.faulty(text) != text and rng.random() < 0.5:
                    samples.append((Sample(kinds.said(kind, kinds.faulty(text)), text), False))
    writable = [text for text in single if kinds.typed(text)]
    for kind in kinds.TYPED + kinds.NOT_TYPED:
        right = kind in kinds.TYPED
        chosen = [t for t in writable if (right or t in numbers) and t != "A"]  # an article
        for text in rng.sample(chosen, per_kind):
            samples.append((Sample(kinds.said(kind, kinds.typed(text) or ""), text), right))
    return samples


def _fits(kind: str, text: str) -> bool:
    """Whether a kind says with a reference what it says with others: "A = x" may be x, and the
    letter of a choice is none beside another's."""
    if kind == "\\boxed{%s = x}":
        return "x" not in text and not re.fullmatch("[A-Za-z]", text)
    return not (kind.startswith("\\boxed{\\text{A. }") and re.fullmatch("[A-Z]", text))


def wrong(name: str, samples: Sequence[tuple[Sample, bool]]) -> list[tuple[Sample, str]]:
    grades = grading.grade(tasks.get(name), [sample for sample, _ in samples])
    return [
        (sample, grade.answer)
        for (sample, right), grade in zip(samples, grades, strict=True)
        if (grade.status == "correct") != right
    ]


def test_math(shared_data: Path) -> None:
    assert not wrong("math", math_samples(shared_data, 2))


@pytest.mark.slow
def test_math_at_length_and_against_math_verify(shared_data: Path) -> None:
    from math_verify import parse, verify

    samples = math_samples(shared_data, 100)
    assert len(samples) > 10_000
    mistaken = wrong("math", samples)
    truth = dict(samples)
    worse = [
        (sample, answer)
        for sample, answer in mistaken
        if verify(parse(f"${sample.answer}$"), parse(sample.completion)) == truth[sample]
    ]
    assert not worse
    assert len(mistaken) < len(samples) / 500


def test_numbers() -> None:
    said = [(Sample(kinds.said(k, n), n), True) for k in kinds.NUMBERS for n in NUMBERS]
    whole = [number for number in NUMBERS if number not in ("-5", "0.25")]
    denied = [(Sample(kinds.said(k, n), n), False) for k in kinds.NOT_NUMBERS for n in whole]
    assert not wrong("gsm8k", said + denied)


def test_letters() -> None:
    samples = []
    for letter, text in CHOICES:
        for other, its in CHOICES:
            names = {"L": letter, "l": letter.lower(), "t": text, "o": other, "u": its}
            if letter != other and letter != "A":
                samples += [
                    (Sample(kind.format(**names), letter, choices=CHOICES), right)
                    for right, templates in ((True, kinds.LETTERS), (False, kinds.NOT_LETTERS))
                    for kind in templates
                ]
    assert not wrong("csqa", samples)


@pytest.mark.parametrize("heading", ["Question", "Problem", "**Problem**", "Human", "Q"])
def test_the_question_again_under_a_heading_is_not_another(heading: str) -> None:
    asked = "If $x^2=81$, find the positive value of $x$"
    again = f"The answer is not 3.\n\n{heading}: {asked}.\n\nFinal Answer: $9$"
    grades = grading.grade(
        tasks.get("math"),
        [
            Sample(again, "9", question=asked),
            Sample(again.replace("81", "16"), "9", question=asked),
        ],
    )
    assert [grade.status == "correct" for grade in grades] == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        "We look for the answer:\n\nProblem: it has two parts.\nFinal Answer: $9$",
        "The answer is:\n\n$9$\n\nHuman: thanks. What is 2+2? Final Answer: $4$",
    ],
)
def test_an_answer_has_something_in_it(text: str) -> None:
    (grade,) = grading.grade(tasks.get("math"), [Sample(text, "9")])
    assert grade.status == "correct"


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"Final Answer: $\text{Monday}$ is the answer.", "Monday", True),
        (r"Final Answer: $p - q$ is the answer.", "p - q", True),
        (r"\boxed{B, C\text{ is the answer}}", "B, C", True),
        (r"\boxed{9\pi!}", r"9\pi", False),  # a factorial, as behind a digit
        (r"\boxed{139^\circ!}", r"139^\circ", False),
    ],
)
def test_what_is_called_the_answer_is_read_and_a_factorial_is_none(text, answer, right) -> None:
    (grade,) = grading.grade(tasks.get("math"), [Sample(text, answer)])
    assert (grade.status == "correct") == right
