"""Numbers in running text as exact fractions, and the grader of every task whose answer is one.

A value is a `Fraction`, so that "18", "18.0", "$18", "36/2" and "1.8 x 10^1" are one number.
Currency signs, unit words and the percent sign are dropped and never rescale: "15%" is 15.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from malt_jax.tasks.extract import Rules, marked
from malt_jax.tasks.task import Choices

# Longer literals are no answer to a word problem, and their powers could stall the grader.
MAX_DIGITS = 40
MAX_EXPONENT = 40

DASHES = "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"  # written for a minus
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys(DASHES, "-"),
        **dict.fromkeys("\u00a0\u2009\u202f", " "),
        **_VULGAR,
        "\u2044": "/",
        "\u00d7": " x ",
    }
)
_SPELLINGS = [
    (re.compile(r"(?<=\d)(?=[½⅓⅔¼¾⅕⅛]|\\[dtc]?frac)"), " "),
    (re.compile(r"(?<=\d)[\u2009\u202f](?=\d{3})"), ""),
    (re.compile(r"(?<=\d)\s*(?:\{,\}|\\!,?|,\\!|\\,)\s*(?=\d{3})"), ""),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2 "),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"\1/\2 "),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), " x "),
    (re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\([$%#])"), r"\1"),
]
_SUPERSCRIPT = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SUPERSCRIPT_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})++(?!\d)(?:\.\d++)?|\d++(?:\.\d++)?|(?<![\w.])\.\d++)"
_NUMBER = re.compile(
    rf"""
    (?: (?<![\w)\]}}]) (?P<minus>-) (?=[\d.$€£¥₹]) )?
    [$€£¥₹]? \s? (?P<inner>-(?=[\d.]))?
    (?<![A-Za-z\d^_]) (?<![\^_]\{{)
    (?:
        (?P<whole>\d++) (?:\s{{1,3}}and)? \s{{1,3}} (?P<top>\d++) \s?/\s? (?P<bottom>\d++)
      | (?: (?P<mantissa>{_DECIMAL}) \s{{0,3}}[x*]\s{{0,3}} )?
        10 \s?\^\s? \{{?(?P<ten>[+-]?\d++)\}}?
      | (?P<dividend>{_DECIMAL}) \s?/\s? (?P<divisor>{_DECIMAL})
      | (?P<plain>{_DECIMAL}) (?: [eE](?P<e>[+-]?\d++)(?!\w) )?
    )
    """,
    re.VERBOSE,
)
_ASIDE = re.compile(r"\([^()]*\)")
_EQUALS = re.compile(r"[=≈]")
_STATES = re.compile(r"\b(?:is|are|equals)\b", re.IGNORECASE)
_BARE_PREFIX = re.compile(r"[\s$€£¥₹*_`(\[\\]*")
_BARE_SUFFIX = re.compile(r"[\s$€£¥₹%*_`.,;)\]\\]*")


class Number(NamedTuple):
    """A number found in a text, and where: text[start:end]."""

    start: int
    end: int
    value: Fraction


def clean(text: str) -> str:
    """Rewrites typographic and LaTeX spellings of numbers into the plain ones that `scan` reads."""
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    text = _SUPERSCRIPT.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPT_DIGITS), text)
    return text.translate(_CHARACTERS)


def scan(text: str) -> Iterator[Number]:
    """Yields the numbers of a cleaned text in order, with their places in it."""
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            yield Number(match.start(), match.end(), value)


def whole(text: str) -> Fraction | None:
    """The value of a text that is one number and at most a currency sign, a "%" or a full stop."""
    text = clean(text)
    numbers = list(scan(text))
    if len(numbers) != 1 or not _BARE_PREFIX.fullmatch(text, 0, numbers[0].start):
        return None
    return numbers[0].value if _BARE_SUFFIX.fullmatch(text, numbers[0].end) else None


def stated(text: str) -> Fraction | None:
    """The number that a statement such as "Total = $18 per day" answers with.

    Remarks in parentheses are left out when a number stands outside them. Then the first of: the
    first number after the last "=", the number that the statement opens with, the first number
    after the first "is", "are" or "equals", the first number. So "3 apples and 2 pears" and "3 or
    2" are both 3: naming two answers earns no more than naming the first.
    """
    text = clean(text)
    outside = _ASIDE.sub(" ", text)
    if _first(outside):
        text = outside
    opening = _first(text)
    if opening is None:
        return None
    _, *right_sides = _EQUALS.split(text)
    if right_sides and (result := _first(right_sides[-1])):
        return result.value
    if _BARE_PREFIX.fullmatch(text, 0, opening.start):
        return opening.value
    return (_first(_STATES.split(text, maxsplit=1)[-1]) or opening).value


def canonical(value: Fraction) -> str:
    """One string per value: an integer, a terminating decimal, or p/q in lowest terms."""
    rest, twos = _divide_out(value.denominator, 2)
    rest, fives = _divide_out(rest, 5)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    point = len(digits) - places
    sign = "-" if value < 0 else ""
    return sign + digits[:point] + ("." + digits[point:] if places else "")


def agree(answer: str, reference: str) -> bool:
    """Whether two canonical numbers are equal.

    Exactly, but for one case: a reference with four or more decimals (0.6667, 10.333333333333334)
    is taken for a rounded quotient and accepts answers within min(|reference| / 1000, 1 / 200) of
    it, so that 2/3 and 0.667 match 0.6666666667 and 0.67 does not.
    """
    if answer == reference:
        return True
    if len(reference.partition(".")[2]) < 4:
        return False
    exact = Fraction(reference)
    return abs(Fraction(answer) - exact) <= min(abs(exact) / 1000, Fraction(1, 200))


def read(text: str) -> str | None:
    """The canonical number of a marked answer."""
    value = stated(text)
    return None if value is None else canonical(value)


def last(text: str) -> str | None:
    """The canonical form of the last number of a text: the fallback for an unmarked answer."""
    numbers = list(scan(clean(text)))
    return canonical(numbers[-1].value) if numbers else None


def reference(answer: str, choices: Choices = ()) -> str | None:
    """The canonical number of a reference, marked or not, that has nothing but units after it."""
    marks = marked(answer)
    text = clean(marks[0][0] if marks else answer)
    numbers = list(scan(text))
    if len(numbers) != 1 or not _BARE_PREFIX.fullmatch(text, 0, numbers[0].start):
        return None
    return canonical(numbers[0].value)


def rules(answer: str, choices: Choices = ()) -> Rules:
    """How numbers are found, and held by value to this reference; without a mark the last number of
    a completion counts. Raises ValueError if the reference is no number."""
    truth = reference(answer)
    if truth is None:
        raise ValueError(f"reference answer {answer!r} is not a number")
    return Rules(truth, read, last, last, agree)


def _first(text: str) -> Number | None:
    return next(scan(text), None)


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    if any(text and len(text) > MAX_DIGITS for text in part.values()):
        return None
    exponent = int(part["ten"] or part["e"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    try:
        if part["whole"]:
            value = int(part["whole"]) + Fraction(int(part["top"]), int(part["bottom"]))
        elif part["dividend"]:
            value = _decimal(part["dividend"]) / _decimal(part["divisor"])
        else:
            value = _decimal(part["plain"] or part["mantissa"] or "1") * Fraction(10) ** exponent
    except ZeroDivisionError:
        return None
    return -value if part["minus"] or part["inner"] else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _divide_out(number: int, factor: int) -> tuple[int, int]:
    count = 0
    while number % factor == 0:
        number //= factor
        count += 1
    return number, count
