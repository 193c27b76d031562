"""Completions that are bombs: each costs at most its time, and its neighbours' verdicts stay. One
pool of grading processes serves them all; no text is graded twice, or its verdict is remembered."""

import time
from collections.abc import Iterator

import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample, isolation, verdict

MATH = tasks.get("math")


@pytest.fixture(scope="module", autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    grading.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "CPU_SECONDS", 0.5)
    monkeypatch.setattr(isolation, "WALL_SECONDS", 3.0)


def statuses(completions: list[str], answer: str) -> list[str]:
    return [v.status for v in grading.grade(MATH, [Sample(c, answer) for c in completions])]


BOMBS = {
    "power tower": "9^{9^{9^9}}",
    "tower of groups": "(((9^9)^9)^9)^9",
    "factorial": "100000000!",
    "factorial of factorials": "((20!)!)!",
    "binomial": "\\binom{10^8}{5 \\cdot 10^7}",
    "sum": "\\sum_{i=1}^{10^9} \\frac{1}{i^2+i+1}",
    "product": "\\prod_{i=1}^{10^7} (x+i)",
    "integral": "\\int_0^1 \\frac{\\sin(x^x)}{\\ln(x^2+3)} dx",
    "expansion": "(a+b+c+d+e+f)^{60}-(a+b+c)^{200}",
    "degree": "(1+x)^{999999999}",
    "digits": "9" * 90_000,
    "parentheses": "(" * 3000 + "1" + ")" * 3000,
    "roots": "\\sqrt{" * 300 + "2" + "}" * 300,
    "fractions": "\\frac{1}{1+" * 200 + "x" + "}" * 200,
    "logarithms": "\\log_{\\log_{2}(3^{3^{3^{3^3}}})}(7^{7^{7^7}})",
    "matrix": "\\begin{pmatrix}" + "x & y \\\\ " * 500 + "\\end{pmatrix}^{100}",
}
TEXTS = {
    "megabytes": "a" * 5_000_000,
    "megabytes of digits": "7" * 5_000_000,
    "open boxes": "\\boxed{" * 200_000,
    "dollars": "$" * 300_001,
    "hashes": "#### " * 200_000,
    "marks": "Final Answer: " * 100_000,
    "commas": "1," * 500_000,
    "blanks": "answer is" + " " * 300_000 + "x",
    "fraction heads": "\\frac{" * 100_000,
    "capital letters": "(A) or (B), " * 100_000,
    "lone surrogates and zeros": "\ud800\0" * 1000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_expression_bomb_costs_at_most_its_time(name: str, short: None) -> None:
    """The bomb's verdict is right or "unknown", and its neighbours' are their own."""
    bomb = f"Final Answer: $\\boxed{{{BOMBS[name]}}}$"
    statuses([f"a process that is warm for {name}"], "2x")
    started = time.monotonic()
    graded = statuses([f"{name}: Final Answer: 2x", bomb, f"{name}: Final Answer: $x+x$"], "2x")
    assert graded[::2] == ["correct", "correct"]
    assert graded[1] in ("wrong", "unknown", "unparseable")
    assert time.monotonic() - started < 10 * isolation.WALL_SECONDS


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_bomb_costs_at_most_its_time(name: str, short: None) -> None:
    for kind, answer in (("math", "2x"), ("gsm8k", "18"), ("csqa", "A"), ("jsonl", "red")):
        task = tasks.get(kind)
        plain = f"{name}\nB"
        graded = grading.grade(task, [Sample(TEXTS[name], answer), Sample(plain, answer)])
        assert graded[0].status != "correct"
        assert graded[1] == verdict(task, plain, answer)
