r"""Whether two canonical MATH answers are equal: first their shapes, then their parts.

Words and numerals with a base ("2112_6") are equal as texts, numbers by their exact values.
Points, intervals and vectors, (a, b) or [a, b), are equal part by part under the same brackets;
lists, sets, unions and what a \pm b stands for in any order; matrices by rows and columns, whatever
brackets are drawn round them. Equations are equal if one is a multiple of the other, and x > a is
the interval. What is left are expressions, which `symbolic` compares.
"""

import re
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from malt_jax.tasks import numeric, symbolic
from malt_jax.tasks.extract import Undecided

MAX_LENGTH = 1000
MAX_DEPTH = 40

_SPELLINGS = [
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\leq?(?:slant)?(?![A-Za-z])|≤"), r"\\le"),
    (re.compile(r"\\geq?(?:slant)?(?![A-Za-z])|≥"), r"\\ge"),
    (re.compile(r"\\neq?(?![A-Za-z])|≠"), r"\\ne"),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\+?(?:∞|\\infty(?![A-Za-z]))"), r"\\infty"),
    (re.compile(r"\(?\\?(?:[pb]?mod)(?:\{\w+\}|\s*\w+)\)?$"), ""),
    (re.compile(r"\\equiv(?![A-Za-z])|≡"), "="),
    (re.compile("∪"), r"\\cup"),
    (re.compile("π"), r"\\pi"),
    (re.compile("±"), r"\\pm"),
    (re.compile(r"√(\w+)"), r"\\sqrt{\1}"),
    (re.compile(r",(?:and|or)(?=[A-Z])"), ","),
    (re.compile(r",?or(?=-?(?:[a-z]|\d+)(?:[<>]|\\[lg]e(?![A-Za-z])))"), r"\\cup "),
    (re.compile(r"(?<=[\d)}]),?(?:and|or)(?=-?[\d\\(]|[a-z](?:_\{?\w+\}?)?=)|;"), ","),
]
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_WORDS = re.compile(r"[A-Za-z]{3,}|^(?:no|on|am|pm)$")
_FUNCTIONS = {"sqrt", "sin", "cos", "tan", "log", "exp", "arcsin", "arccos", "arctan"}
# Runs of these are products of variables; of other letters the parser would make anagrams equal.
_VARIABLES = (set("abcxyz"), set("kmnpqrstxyz"))
_BASE = re.compile(r"(-?[\dA-Za-z.]+)_\{?(\d+)\}?")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_RELATION = re.compile(r"(\\(?:le|ge|ne)(?![A-Za-z])|[<>=])")
_FLIPPED = {">": "<", r"\ge": r"\le"}
# A name that is no letter; \\pi is a number.
_NAMES = re.compile(
    r"\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|rho|sigma|ell|[DTO][a-z]+)(?![a-z])"
)
_NAME = re.compile(rf"[A-Za-z]|{_NAMES.pattern}")
_MEASURED = re.compile(r"(?:\\angle|m\\angle)?[A-Z]{1,3}")


class _Shape(NamedTuple):
    kind: str
    ordered: bool
    parts: tuple[str, ...]


def equivalent(answer: str, truth: str) -> bool:
    """Whether two canonical answers are equal.

    Raises:
        Undecided: if one is an expression of more than MAX_LENGTH characters, or with more than
            MAX_DEPTH brackets inside each other.
    """
    return answer == truth or _equal(_spelled(answer), _spelled(truth))


def _equal(a: str, b: str) -> bool:
    if a == b:
        return True
    if len(sides := split(a, r"\approx")) > 1:
        return any(_equal(side, b) for side in sides)
    relations = _RELATION.search(a), _RELATION.search(b)
    if all(relations):
        return _equal_relations(a, b)
    if relations[0] and not split(a, ",")[1:] and (sides := split(a, "="))[1:]:
        return _says(sides, b)
    if relations[1] and _solves(a, split(b, "=")):
        return True
    if any(relations):
        a, b = (_value_of(text) if _RELATION.search(text) else text for text in (a, b))
    shapes = _shape(a), _shape(b)
    if shapes[1] is None and shapes[0] and shapes[0].kind == "list":
        return all(_equal(part, b) for part in shapes[0].parts)  # 1/2 or 0.5
    if shapes[0] is None and shapes[1] and shapes[1].kind == "list" and a.isdecimal():
        return _is_list_without_spaces(a, shapes[1].parts)
    if (verdict := _equal_shapes(*shapes)) is not None:
        return verdict
    bases = [_BASE.fullmatch(text) for text in (a, b)]
    if any(bases):
        return len({base and base.groups() for base in bases}) == 1
    if not (_is_expression(a) and _is_expression(b)):
        return False
    values = numeric.whole(a), numeric.whole(b)
    return values[0] == values[1] if None not in values else symbolic.equal(a, b)


def _says(sides: Sequence[str], truth: str) -> bool:
    """Whether an equation answers with `truth`, which is none: as the last side of "a+b = 7", as
    every side of "1/2 = 0.5", and as what "2x + 4y = 3" is when it is solved for y."""
    first, *_, last = sides
    named = [bool(_letters(side) or _NAMES.search(side)) for side in sides]
    if not any(named):
        return all(_equal(side, truth) for side in sides)
    if named[-1] and (not named[0] or (_names_what(last, first) and not _equal(last, truth))):
        first, last = last, first
    elif not named[0] and numeric.whole(first) is not None and not _equal(first, truth):
        return False  # 17 = x = 18
    if _equal(last, truth):
        # x^2 - 4 = 0 is an equation that is not solved.
        terms = re.split(r"[+-]", first) if truth == "0" else []
        return all(numeric.whole(term) is None for term in terms)
    return _solves(truth, sides)


def _names_what(name: str, value: str) -> bool:
    """Whether "b - 1 = x" gives an expression a name: it has no part of it."""
    if not _NAME.fullmatch(name) or _NAME.fullmatch(value):
        return False
    return name not in _letters(value) and name not in _NAMES.findall(value)


def _solves(value: str, sides: Sequence[str]) -> bool:
    """Whether an equation of a line or a plane, solved for y or z, has the other side `value`."""
    if len(sides) != 2 or not _letters(value):
        return False
    others = set().union(*map(_letters, sides)) - _letters(value)
    if others not in ({"y"}, {"z"}) or not all(map(_is_expression, (*sides, value))):
        return False
    return symbolic.proportional((sides[0], sides[1]), (others.pop(), value), False)


def _letters(text: str) -> set[str]:
    return set(re.findall("[A-Za-z]", _COMMANDS.sub("", text)))


def _is_list_without_spaces(digits: str, parts: Sequence[str]) -> bool:
    """Whether "3,125", which reads as 3125, is the list of 3 and 125."""
    if len(parts) > 3 or not all(map(str.isdecimal, parts)):
        return False
    orders = (order for order in permutations(parts) if {len(part) for part in order[1:]} == {3})
    return any("".join(order) == digits for order in orders)


def _equal_shapes(a: _Shape | None, b: _Shape | None) -> bool | None:
    """None if neither has a shape."""
    if a is None or b is None:
        return None if a is b else False
    if (a.kind, len(a.parts)) != (b.kind, len(b.parts)):
        return False
    if a.ordered:
        return all(map(_equal, a.parts, b.parts))
    left = list(b.parts)
    for part in a.parts:
        match = next((i for i, other in enumerate(left) if _equal(part, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _shape(text: str) -> _Shape | None:
    """The shape of what has parts."""
    if len(parts := split(text, ",")) > 1:
        return _Shape("list", False, _flat(parts))
    if len(parts := split(text, r"\cup")) > 1:
        return _Shape("union", False, tuple(parts))
    if matrix := _MATRIX.fullmatch(text):
        kind = {"v": "determinant", "V": "norm"}.get(matrix[1], "matrix")
        rows = [row.split("&") for row in matrix[2].removesuffix(r"\\").split(r"\\")]
        sizes = ",".join(str(len(row)) for row in rows)
        return _Shape(f"{kind} {sizes}", True, tuple(cell for row in rows for cell in row))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return _Shape("list", False, _flat(split(text[2:-2], ",")))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        parts = split(text[1:-1], ",")
        return _Shape(text[0] + text[-1], True, tuple(parts)) if len(parts) > 1 else None
    if _PLUS_MINUS.search(text):
        return _Shape("list", False, _flat([text]))
    return None


def split(text: str, separator: str) -> list[str]:
    """The parts between the separators that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and text.startswith(separator, i):
            parts.append(text[start:i].strip())
            start = i + len(separator)
    return [*parts, text[start:].strip()]


def _flat(parts: Sequence[str]) -> tuple[str, ...]:
    """The members of a list: both values of each a ± b, without a name they have in common."""
    members = []
    for part in parts:
        for upper, lower in ("+-", "-+") if _PLUS_MINUS.search(part) else ("..",):
            text = re.sub(r"\\pm(?![A-Za-z])", upper, part)
            members.append(re.sub(r"\\mp(?![A-Za-z])", lower, text).removeprefix("+"))
    names = {member.partition("=")[0] for member in members}
    if len(names) == 1 and len(name := names.pop()) == 1 and name.isalpha():
        members = [member.partition("=")[2] or member for member in members]
    return tuple(members)


def _equal_relations(a: str, b: str) -> bool:
    if (interval := _interval(a)) and (other := _interval(b)):
        return interval[0] == other[0] and _equal(interval[1], other[1])
    if (verdict := _equal_shapes(_shape(a), _shape(b))) is not None:
        return verdict
    sides = _sides(a), _sides(b)
    if any(len(side) != 3 for side in sides) or not all(
        _is_expression(x) for side in sides for x in side[::2]
    ):
        return False
    (sign, *first), (its_sign, *second) = (
        (_FLIPPED[op], right, left) if op in _FLIPPED else (op, left, right)
        for left, op, right in sides
    )
    directed = sign in ("<", r"\le")
    if sign != its_sign:
        return False
    return symbolic.proportional((first[0], first[1]), (second[0], second[1]), directed)


def _value_of(relation: str) -> str:
    """What a relation says that stands against no relation: x > a an interval, AB = 5 a number."""
    if interval := _interval(relation):
        return interval[1]
    name, sign, *rest = _sides(relation)
    return rest[0] if len(rest) == 1 and sign == "=" and _MEASURED.fullmatch(name) else relation


def _interval(text: str) -> tuple[str, str] | None:
    """The name and the interval of an inequality that bounds one letter by constants."""
    sides = _sides(text)
    signs = sides[1::2]
    if len(signs) not in (1, 2) or {s in ("<", r"\le") for s in signs} | {
        s in (">", r"\ge") for s in signs
    } != {True, False}:
        return None
    if signs[0] in _FLIPPED:
        sides = [_FLIPPED.get(side, side) for side in reversed(sides)]
    if len(signs) == 1:
        sides = [r"-\infty", "<", *sides] if _is_name(sides[0]) else [*sides, "<", r"\infty"]
    low, left, name, right, high = sides
    if not _is_name(name) or name in low + high:
        return None
    return name, f"{'[('[left == '<']}{low},{high}{'])'[right == '<']}"


def _sides(relation: str) -> list[str]:
    """Sides and signs in turn."""
    return [part.strip() for part in _RELATION.split(relation)]


def _is_name(text: str) -> bool:
    return len(text) == 1 and text.isalpha()


def _is_expression(text: str) -> bool:
    """Whether the parser may see it: no words."""
    for word in _WORDS.findall(_COMMANDS.sub(" ", text)):
        if word not in _FUNCTIONS and not any(set(word) <= letters for letters in _VARIABLES):
            return False
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(text) > MAX_LENGTH or deepest > MAX_DEPTH:
        raise Undecided
    return True


def _spelled(text: str) -> str:
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text
