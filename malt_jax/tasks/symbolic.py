"""Whether two LaTeX expressions have the same value, everywhere.

math-verify's parser reads them. Equality is then not left to its comparison, whose rounded
differences take 1/2004! for zero and whose simplification is slow and misses identities: rational
numbers are compared exactly, and everything else to 30 significant digits at fixed points
(expressions that differ do so almost everywhere: Schwartz, J. ACM 27 (1980), 701-717).

Nothing here has a limit on its time: `isolation` sets one.
"""

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

# The k-th name's value is start + k * step: twice positive, then of both signs. No textbook
# expression has a pole there.
_POINTS = (("731/997", "389/1013"), ("2237/1009", "1619/991"), ("-1327/1019", "919/983"))
_PRECISION, _AGREEMENT = 50, 30  # significant digits
_COMMANDS = re.compile(r"\\[A-Za-z]+")
# What the parser drops without a word: the base of a numeral, primes, a second decimal point.
_MISREAD = re.compile(
    r"[\d)}]\s*_|'|\\prime|\d\.\d+\.|[.\d]\\overline|[:;\"#]|\.\.|\\[lc]?dots|\\[hv]?phantom"
)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\\[a-z]+|[a-z])\^\{?\\circ(?![a-z])\}?")
_FACTOR = re.compile(
    r"(?<=[\d)])\("
)  # 2(3) would be read as a mixed number, 5, and (2)(3) as no number


@lru_cache(maxsize=8192)
def equal(a: str, b: str) -> bool:
    """Whether two expressions have equal values; False if one of them cannot be read.

    The letter i is the imaginary unit; letters count with their case.
    """
    return _consistent(a, b) and _agree(read(a), read(b))


@lru_cache(maxsize=8192)
def proportional(a: tuple[str, str], b: tuple[str, str], directed: bool) -> bool:
    """Whether left - right of `a` is a constant, not 0, times that of `b`: then the equations
    "left = right" say the same. A positive constant where `directed`, for inequalities."""
    if not _consistent("".join(a), "".join(b)):
        return False
    sides = [read(side) for side in (*a, *b)]
    if any(side is None for side in sides):
        return False
    first, second = sides[0] - sides[1], sides[2] - sides[3]
    values = list(_values([first, second]))
    if not values or not all(x and y for x, y in values):
        return False
    ratio = values[0][0] / values[0][1]
    if directed and not (ratio.is_real and ratio > 0):
        return False
    return len(values) > 1 and all(_near(x, ratio * y) for x, y in values[1:])


def read(latex: str) -> Any:
    """The sympy expression of one value, with exact numbers; None for anything else."""
    import sympy
    from math_verify.parser import LatexExtractionConfig, NormalizationConfig, parse

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if _MISREAD.search(latex):
        return None
    # Units were dropped where they can be told from letters; the parser's own rule guesses.
    plain = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
    )
    radians = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", latex)
    product = _FACTOR.sub(r"\\cdot(", radians)
    parsed = parse(
        f"${product}$",
        [LatexExtractionConfig(normalization_config=plain)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    if not parsed or not isinstance(parsed[0], sympy.Expr):
        return None
    expression = sympy.nsimplify(parsed[0].doit(), rational=True)
    unit = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
    return expression.subs(unit)


def warm_up() -> None:
    """Imports the parser and what it needs, which takes a second or more."""
    equal("x", "2y")


def _consistent(a: str, b: str) -> bool:
    """Whether no letter stands in one of them large and in the other small; the parser takes
    both for the same."""
    letters = [set(re.findall("[A-Za-z]", _COMMANDS.sub("", text))) for text in (a, b)]
    only = letters[0] ^ letters[1]
    return not any(letter.swapcase() in only for letter in only)


def _agree(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return False
    if a == b:
        return True
    if (a.is_Rational and b.is_Rational) or a.is_infinite or b.is_infinite:
        return False
    values = list(_values([a, b]))
    return bool(values) and all(_near(x, y) for x, y in values)


def _values(expressions: list[Any]) -> Iterator[list[Any]]:
    """The expressions' values at each point where all of them have one."""
    import sympy

    symbols = set().union(*(e.free_symbols for e in expressions))
    names = sorted({symbol.name for symbol in symbols})
    for start, step in _POINTS if names else _POINTS[:1]:
        point = {n: sympy.Rational(start) + k * sympy.Rational(step) for k, n in enumerate(names)}
        at = {symbol: point[symbol.name] for symbol in symbols}
        values = [_value(e, at) for e in expressions]
        if all(v is not None for v in values):
            yield values


def _value(expression: Any, at: dict[Any, Any]) -> Any:
    from sympy.core.evalf import PrecisionExhausted

    try:
        value = expression.evalf(_PRECISION, subs=at, strict=True)
    except PrecisionExhausted:  # terms cancel: a zero, which no precision resolves
        value = expression.evalf(_PRECISION, subs=at, maxn=4 * _PRECISION, chop=True)
    return value if value.is_number and value.is_finite else None


def _near(a: Any, b: Any) -> bool:
    return bool(abs(a - b) <= max(abs(a), abs(b)) / 10**_AGREEMENT)
