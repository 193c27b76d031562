"""Numbers in running text as exact fractions.

A value is a `Fraction`, so that "18", "18.0", "$18", "36/2" and "1.8 x 10^1" are one number.
Currency signs, unit words and the percent sign are dropped and never rescale: "15%" is 15.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

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
    (re.compile(r"(?<![A-Za-z\d.,])(\d[\d,]*(?:\.\d+)?)[kK]\b"), r"\1 thousand"),
    (re.compile(r"(?<![A-Za-z\d.,])(\d[\d,]*(?:\.\d+)?)(?:M|mn)\b"), r"\1 million"),
    (re.compile(r"(?<![A-Za-z\d.,])(\d[\d,]*(?:\.\d+)?)bn\b"), r"\1 billion"),
    (re.compile(r"(?<=\d)\s+point\s+(?=\d)"), "."),
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
    (re.compile(r"(?<=\d) and (?:a|one)[ -]half\b"), " 1/2"),
    (re.compile(r"(?<=\d) and (?:a|one)[ -](?:quarter|fourth)\b"), " 1/4"),
    (re.compile(r"(?<=\d) and (?:a|one)[ -]third\b"), " 1/3"),
    (re.compile(r"(?<=\d) and two[ -]thirds\b"), " 2/3"),
    (re.compile(r"(?<=\d) and three[ -](?:quarters|fourths)\b"), " 3/4"),
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
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# "70 000" where that is all there is; in running text these are two numbers.
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,/])(?!\.\d)")
BARE_PREFIX = re.compile(r"[\s$€£¥₹*_`(\[\\]*")
BARE_SUFFIX = re.compile(r"[\s$€£¥₹%*_`.,;)\]\\]*")


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
    text = clean(unspaced(text))
    numbers = list(scan(text))
    if len(numbers) != 1 or not BARE_PREFIX.fullmatch(text, 0, numbers[0].start):
        return None
    return numbers[0].value if BARE_SUFFIX.fullmatch(text, numbers[0].end) else None


def unspaced(text: str) -> str:
    """A text with "70 000" as 70000."""
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
