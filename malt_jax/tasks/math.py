r"""MATH (Hendrycks et al., arXiv 2103.03874): competition problems; the solution boxes its answer.

Equality is decided in two steps: equal canonical forms, and else math-verify (symbolic equality)
for expressions small enough that it cannot stall.
"""

import logging
import re
from functools import lru_cache
from math import prod

from malt_jax.tasks import numeric
from malt_jax.tasks.extract import judge, marked
from malt_jax.tasks.task import Choices, Hub, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Grade, Question

_SPANS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_ANSWER_IS = re.compile(r"\banswer\s+is\s*:?\s*([^\n]+)", re.IGNORECASE)

_TEXT = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}"
_REWRITES: list[tuple[re.Pattern[str], str]] = [
    (
        re.compile(
            r"\\(?:left|right|displaystyle|limits)(?![a-zA-Z])|(?<!\\)\\[!,;:> ]|~|\\q?quad"
        ),
        "",
    ),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*([\dA-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\^\s*\{?\s*(?:\\circ|°)\s*\}?|°"), ""),
    (re.compile(r"\\?%|\\\$|(?<!\\)\$"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3})"), ","),
    (re.compile(r"\\(le|ge|ne)q(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"[\u2212\u2013]"), "-"),
]
_UNIT = re.compile(rf"(?<=[\d}})])\s*{_TEXT}(?:\s*\^\s*\{{?\d\}}?)?\s*\.?$")
_UNIT_WORDS = re.compile(r"^(-?[\d.,/]+)(?:\s+[A-Za-z]{3,}\.?)+$")
_NAME = re.compile(r"^[A-Za-z](?:\([A-Za-z]\))?(?:=|\\in(?![A-Za-z]))(?=[^=]+$)")

_WORDS = re.compile(r"[A-Za-z]{3,}")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_FUNCTIONS = {"sqrt", "sin", "cos", "tan", "log", "exp", "arcsin", "arccos", "arctan", "pmatrix"}
_HEAVY = re.compile(r"\\(?:sum|prod|int|lim|[dt]?binom)(?![A-Za-z])|!|_|\d{16}|\^\^|\*\*")
_SIGN = re.compile(r"[+-]|\\(?:pm|mp)(?![A-Za-z])")
_GROUP_POWER = re.compile(r"[)}\]|]\s*\^")
_POWER = re.compile(r"\^\s*(?:\{([^{}]*)\}|(\w))")
MAX_LENGTH = 160
MAX_DEPTH = 6
MAX_POWER = 20
MAX_TERMS = 1024


def read_row(row: Row) -> Question:
    """Reads `answer` where the form has it (MATH-500), else the boxed answer of `solution`."""
    own_id = id_field(row, "unique_id") or id_field(row, "idx")
    source = "answer" if "answer" in row else "solution"
    return Question(own_id, text_field(row, "problem").strip(), answer_field(row, source))


def canonical(latex: str) -> str | None:
    r"""The form in which answers are compared and votes counted; None if nothing is left.

    Without math delimiters, spacing, `\left` and `\right`, degree, percent and dollar signs, a unit
    after a number, a leading "x =", and a final full stop; `\dfrac12` as `\frac{1}{2}`;
    `\text{...}` as its content; a plain number or fraction as `numeric.canonical` writes it; a
    single word in lower case. Applying it twice changes nothing.
    """
    text = latex
    while (shorter := _strip_once(text)) != text:
        text = shorter
    return text or None


def reference(answer: str, choices: Choices = ()) -> str | None:
    marks = marked(answer)
    return canonical(marks[0][0]) if marks else None if len(answer) > 400 else canonical(answer)


def read(text: str) -> str | None:
    """The canonical form of a marked answer: its math if it has any, else what follows "is"."""
    if spans := _spans(text):
        return canonical(", ".join(spans))
    stated = _ANSWER_IS.findall(text)
    return canonical(stated[-1] if stated else text)


def fallback(text: str) -> str | None:
    """What follows the last "answer is", else the last math span of the completion."""
    if stated := _ANSWER_IS.findall(text):
        return read(stated[-1])
    spans = _spans(text)
    return canonical(spans[-1]) if spans else None


def grade(completion: str, answer: str, *, truncated: bool = False, choices: Choices = ()) -> Grade:
    """Grades by canonical form, then by math-verify.

    Raises:
        ValueError: if the reference answer is blank, or a solution without a boxed answer.
    """
    truth = reference(answer)
    if truth is None:
        raise ValueError(f"reference answer {answer!r:.80} holds no answer")
    return judge(
        completion, truth, read=read, fallback=fallback, agree=equivalent, truncated=truncated
    )


def equivalent(answer: str, truth: str) -> bool:
    """Whether two canonical answers are equal, as strings or else as expressions."""
    if answer == truth:
        return True
    return is_small(answer) and is_small(truth) and _verify(answer, truth)


def is_small(latex: str) -> bool:
    """Whether an expression is free of what makes a computer algebra system slow.

    That is: sums, products, integrals, limits, binomials, factorials, subscripts; literals of 16
    digits; powers of powers, exponents over MAX_POWER (their product, where a group is raised);
    what could expand to more than MAX_TERMS terms; deep nesting; length. Words are refused too: a
    parser takes them for products of variables, so that anagrams would be equal.
    """
    if len(latex) > MAX_LENGTH or _HEAVY.search(latex):
        return False
    if not set(_WORDS.findall(_COMMANDS.sub(" ", latex))) <= _FUNCTIONS:
        return False
    depth = deepest = 0
    for character in latex:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    exponents = [a or b for a, b in _POWER.findall(latex)]
    if deepest > MAX_DEPTH or latex.count("^") != len(exponents):
        return False
    literals = [int(literal) for e in exponents for literal in re.findall(r"\d+", e)]
    signs = len(_SIGN.findall(latex))
    if _GROUP_POWER.search(latex):
        power = prod(max(1, literal) for literal in literals)
        expanded = (signs + 1) ** min(power, MAX_POWER)
    else:
        power, expanded = max(literals, default=0), 2**signs
    return power <= MAX_POWER and expanded <= MAX_TERMS


@lru_cache(maxsize=8192)
def _verify(answer: str, truth: str) -> bool:
    from math_verify import parse, verify

    # Its time limits are signals, for the main thread only; `is_small` stands in for them.
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    gold, candidate = (parse(f"${latex}$", parsing_timeout=None) for latex in (truth, answer))
    return bool(gold and candidate and verify(gold, candidate, timeout_seconds=None))


def warm_up() -> None:
    """Imports math-verify and its parser, which takes a second or more."""
    _verify("x", "y")


def _strip_once(text: str) -> str:
    text = text.strip().strip("$").removesuffix(".").strip()
    for pattern, plain in _REWRITES:
        text = pattern.sub(plain, text)
    text = _UNIT_WORDS.sub(r"\1", _UNIT.sub("", text))
    text = re.sub(_TEXT, r"\1", text)
    text = text.lower() if text.isalpha() and len(text) > 1 else text
    text = _NAME.sub("", "".join(text.split()))
    value = numeric.whole(text) if text[:1] != "(" else None
    return text if value is None else numeric.canonical(value)


def _spans(text: str) -> list[str]:
    return ["".join(groups).strip() for groups in _SPANS.findall(text)]


TASK = Task(
    name="math",
    hub=Hub("DigitalLearningGmbH/MATH-lighteval", "default", {"train": "train", "eval": "test"}),
    answer_hint="an expression in LaTeX",
    read_row=read_row,
    reference=reference,
    grade=grade,
    warm_up=warm_up,
)
