"""Numbers in running text as exact fractions, and the grader of every task whose answer is one.

A value is a `Fraction`, so that "18", "18.0", "$18", "36/2" and "1.8 x 10^1" are one number.
Currency signs, unit words and the percent sign are dropped and never rescale: "15%" is 15.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from malt_jax.tasks import extract
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
# A minus that stands apart is one where it opens a statement; "16 \u2212 7" is a difference, and
# the hyphen of "- 18 eggs" a bullet.
_OPENS = r"(^\s*|[:=(]\s*|\b(?:is|are|equals)\s+)"
_CENTS = r"(?:,\s*)?\s*(?:and\s+)?(\d{1,2}) cents?\b"
_SPELLINGS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (
        re.compile(_OPENS + r"(?:\u2212\s+|(?:minus|negative)\s+)(?=[\d.$€£¥₹])", re.IGNORECASE),
        r"\1-",
    ),
    (re.compile(r"(?<=\d)\*\*(?=-?\d)"), "^"),
    (re.compile(r"([$€£]\s?\d[\d,]*(?:\.\d+)?)\s?[kK]\b"), r"\1 thousand"),
    (re.compile(r"([$€£]\s?\d[\d,]*(?:\.\d+)?)\s?(?:[mM]|mn)\b"), r"\1 million"),
    (re.compile(r"([$€£]\s?\d[\d,]*(?:\.\d+)?)\s?(?:[bB]|bn)\b"), r"\1 billion"),
    (
        re.compile(r"(?<![\d.,])(\d{1,3})((?:['\u2019\u00a0]\d{3})+)(?!\d)"),
        lambda m: m[1] + re.sub(r"\D", "", m[2]),
    ),
    (
        re.compile(r"(?:[$€£]\s?(\d++)|\b(\d++) (?:dollars?|euros?|pounds?))(?!\.\d)" + _CENTS),
        lambda m: f"${m[1] or m[2]}.{m[3]:0>2}",
    ),
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

# With India's groups as well: 1,00,000.
_DECIMAL = (
    r"(?:\d{1,3}(?:,\d{2}(?=,))*+(?:,\d{3})++(?!\d)(?:\.\d++)?|\d++(?:\.\d++)?|(?<![\w.])\.\d++)"
)
_SCALE = "(?i:hundred|thousand|million|billion|trillion)"
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
      | (?P<base>{_DECIMAL}) \s?\^\s? (?: \{{(?P<braced>[+-]?\d++)\}} | (?P<power>[+-]?\d++) )
      | (?P<plain>{_DECIMAL})
        (?: [eE](?P<e>[+-]?\d++)(?!\w) | \s?(?P<scale>{_SCALE})\b )?
    )
    """,
    re.VERBOSE,
)
_ASIDE = re.compile(r"\([^()]*\)")
_EQUALS = re.compile(r"[=≈]")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# "70 000" where that is all there is; in running text these are two numbers.
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,/])(?!\.\d)")
_SUM = re.compile(r"\d\s*[-+*/^x]\s*[$(]?\d", re.IGNORECASE)
# What a sentence says besides its answer: "After 3 years", "of the 20 students", "Day 5:".
_REASON = re.compile(r"[,;]?\s+(?:because|since)\b", re.IGNORECASE)
_LEADING_CLAUSE = re.compile(
    r"\s*(?:if|when|since|because|as|given|after|while|with)\b[^,]*,(?!\d)", re.IGNORECASE
)
_TRAILING_CLAUSE = re.compile(
    r"[,;]?\s+(?:which|because|since|if|when|where|assuming|given|so that)\b", re.IGNORECASE
)
_BESIDE = re.compile(
    r"\b(?:after|before|in|for|of|to|from|per|every|each|over|during|within|on|at|with|by|between|than"
    r"|the|these|those|all|both|his|her|its|their|my|our|your|day|week|month|year|step|part|to\s+\w+)\s*"
    r"(?:(?:the|these|those|all|first|last|next|about)\s*)?[$€£]?$",
    re.IGNORECASE,
)
_STATES = re.compile(r"\b(?:is|are|equals)\b", re.IGNORECASE)
_HASHES = re.compile(r"^\s*####(?!#)(.*)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?;](?=\s)")
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
    text = clean(_unspaced(text))
    numbers = list(scan(text))
    if len(numbers) != 1 or not _BARE_PREFIX.fullmatch(text, 0, numbers[0].start):
        return None
    return numbers[0].value if _BARE_SUFFIX.fullmatch(text, numbers[0].end) else None


def stated(text: str) -> Fraction | None:
    """The number that a statement such as "Total = $18 per day" answers with.

    Remarks in parentheses, and reasons ("because 10 - 4 = 6"), are left out when a number stands
    outside them. Then the first of: the
    first number after the last "=" (before it in "18 = 9 * 2"), the number that the statement opens
    with, the first number after the first "is", "are" or "equals", and what a sentence answers
    with. So "3 apples and 2 pears" and "3 or 2" are both 3: naming two answers earns no more than
    naming the first.
    """
    text = clean(_unspaced(text))
    outside = _ASIDE.sub(" ", text)
    if _first(outside):
        text = outside
    opening = _first(text)
    if opening is None:
        return None
    statement = _REASON.split(text, maxsplit=1)[0]
    text = statement if _first(statement) else text
    left, *right_sides = _EQUALS.split(text)
    if right_sides and (result := _first(right_sides[-1])):
        worked_out = whole(left) if _SUM.search(right_sides[-1]) else None
        return result.value if worked_out is None else worked_out
    if _BARE_PREFIX.fullmatch(text, 0, opening.start):
        return opening.value
    text = _main_clause(text)
    _, *said = _STATES.split(text, maxsplit=1)
    stated_number = _first(said[0]) if said else None
    return (stated_number or _answered(text) or opening).value


def _main_clause(sentence: str) -> str:
    """What stands beside "If she works 8 hours," and ", which is 2 more", where it has a number."""
    main = _TRAILING_CLAUSE.split(sentence, maxsplit=1)[0]
    main = main if _first(main) else sentence
    clause = _LEADING_CLAUSE.match(main)
    rest = main[clause.end() :] if clause else ""
    return rest if _first(rest) else main


def _answered(sentence: str) -> Number | None:
    """The number that a sentence is about: its last one in no phrase of time, place or
    belonging."""
    numbers = [
        n for n in scan(sentence) if not sentence[n.end : n.end + 9].lstrip(" *").startswith(":")
    ]
    free = [n for n in numbers if not _BESIDE.search(sentence[max(0, n.start - 40) : n.start])]
    return next(reversed(free or numbers), None)


def _unspaced(text: str) -> str:
    return _SPACED.sub(lambda m: m[0].replace(" ", ""), text)


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
    """The fallback for an unmarked answer: the number after the last "answer is", "Answer:" or
    "####", else the last number of a text, in canonical form."""
    marked_lines = [line for line in _HASHES.findall(text) if whole(line) is not None]
    for statement in [*reversed(extract.stated(text)), *reversed(marked_lines)]:
        # "The answer is 18. I used 2 steps."
        if answer := read(_SENTENCE_END.split(statement, maxsplit=1)[0]):
            return answer
    numbers = list(scan(clean(text)))
    return canonical(numbers[-1].value) if numbers else None


def reference(answer: str, choices: Choices = ()) -> str | None:
    """The canonical number of a reference, marked or not, that has nothing but units after it."""
    marks = marked(answer)
    text = clean(_unspaced(marks[0][0] if marks else answer))
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
    exponent = int(part["ten"] or part["e"] or part["braced"] or part["power"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    try:
        if part["whole"]:
            value = int(part["whole"]) + Fraction(int(part["top"]), int(part["bottom"]))
        elif part["dividend"]:
            value = _decimal(part["dividend"]) / _decimal(part["divisor"])
        elif part["base"]:
            value = _decimal(part["base"]) ** exponent
        else:
            exponent += _SCALES.get((part["scale"] or "").lower(), 0)
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
