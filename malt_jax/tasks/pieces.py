r"""A statement cut into its formulas and the words around them.

Formulas stand between math delimiters ("the area is $9\pi$"), words stand in a formula
(`9\pi\text{ is the area}`), or neither is marked ("the area is 9*pi").
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """A formula, or the words between two formulas with their punctuation."""

    text: str
    is_formula: bool


class _Token(NamedTuple):
    """`kind` is "formula", "words" or "neutral": blanks and punctuation, which belong to what
    stands around them. `delimited` formulas stood between math delimiters."""

    text: str
    kind: str
    delimited: bool = False


SPANS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_FUNCTIONS = (
    r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)|sqrt|log|ln|exp|pi|theta|infinity|infty|oo|gcd|lcm|det"
)
_SHORT_WORDS = (
    r"(?i:am|an|as|at|be|by|do|go|he|if|in|is|it|me|my|no|of|on|or|so|to|up|us|we|vs|th|st|nd|rd"
    r"|cm|mm|km|ft|kg|mi|lb|oz|hr|yd|mg|ml)(?![A-Za-z])"
)
# Products of variables and names of polygons are none.
_LONG_WORDS = (
    r"(?![abcxyz]{3}(?![A-Za-z]))(?![A-Z]{3,4}(?![A-Za-z]))[A-Za-z]{3,}(?:['\u2019-][A-Za-z]+)*"
)
_POWER = r"(?:\s*\^\s*(?:\d|\{\d\}))?"  # of a unit
_TOKEN = re.compile(
    rf"""
      (?P<text>\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm)\s*\{{([^{{}}]*)\}}{_POWER})
    | (?P<environment>\\begin\s*\{{([a-z]+\*?)\}}.*?\\end\s*\{{\4\}})
    | (?P<neutral>\s+|~|\\(?:[ ,;:!]|q?quad(?![A-Za-z]))|,(?!\d)|[.?;:](?=\s|$)
      | (?<![\d)\]}}%])(?<!\b[a-z])(?<!\\pi)(?<!\\circ)!(?=\s|$)
      | (?<=\d)-(?=[A-Za-z]{{3}}))
    | (?P<command>\\(?:[A-Za-z]+|.))
    | (?P<bracket>[({{\[])
    | (?P<function>(?:{_FUNCTIONS})(?![A-Za-z]))
    | (?P<word>(?:{_SHORT_WORDS}|{_LONG_WORDS})(?:/[A-Za-z]+)?(?:[\u00b2\u00b3]|{_POWER})
      | (?<![\w.+*/^=-])(?:[aA]|I)(?=\s+[A-Za-z]{{2}}))
    | (?P<sign>[^\W\d_]+|\d+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_FACTOR = re.compile(r"\s*(?:\\?pi|[xyz]{2})\s*")
_GLUED = re.compile(r"[\w}\)\]^\\]$")
_OPERATES = "[-+*/^=<>\u2264\u2265\u2260\u00b1\u00d7\u03c0\\d]"
_OPERATES_FIRST, _OPERATES_LAST = re.compile(_OPERATES), re.compile(rf"(?:{_OPERATES}|\\pi)\s*$")
_CLOSING = {"(": ")]", "[": "])", "{": "}"}


def cut(text: str) -> list[Piece]:
    """The pieces in order; between two formulas there are words, if only a comma or a blank."""
    tokens: list[_Token] = []
    end = 0
    for match in SPANS.finditer(text):
        tokens += _tokens(text[end : match.start()], typed=True)
        tokens += _delimited(next(filter(None, match.groups())))
        end = match.end()
    return _merged([*tokens, *_tokens(text[end:], typed=True)])


def is_wording(text: str) -> bool:
    r"""Whether what \text or the like shows is words: more than a factor of a product, or the
    letter of a unit."""
    return bool(re.search("[A-Za-z]{2}", text)) and not _FACTOR.fullmatch(text)


def _tokens(text: str, *, typed: bool) -> Iterator[_Token]:
    """Where a formula is not `typed`, letters are no words."""
    place = 0
    while match := _TOKEN.match(text, place):
        kind, place = str(match.lastgroup), match.end()
        if kind == "text":
            kind = "words" if is_wording(match[2]) else "formula"
        elif kind == "bracket" and (end := _end(text, match.start())):
            place = end
            glued = match[0] == "{" or _GLUED.search(text[: match.start()])
            inside = _tokens(text[match.start() + 1 : end - 1], typed=typed)
            words = not glued and any(token.kind == "words" for token in inside)
            kind = "words" if words else "formula"
        elif kind == "word" and typed:
            kind = "words"
        elif kind == "bracket" and typed:
            kind = "neutral"  # it is closed behind another formula
        elif kind != "neutral":
            kind = "formula"
        yield _Token(text[match.start() : place], kind)


def _delimited(formula: str) -> Iterator[_Token]:
    """The parts of a formula between delimiters that its words part; words alone are one."""
    part = ""
    tokens = list(_tokens(formula.strip(), typed=False))
    if {token.kind for token in tokens} <= {"words", "neutral"}:
        yield _Token(formula.strip(), "formula", delimited=True)
        return
    for token in [*tokens, _Token("", "words")]:
        if token.kind != "words":
            part += token.text
            continue
        if part.strip(" ,.~"):
            yield _Token(part, "formula", delimited=True)
        elif part:
            yield _Token(part, "neutral")
        if token.text:
            yield token
        part = ""


def _merged(tokens: list[_Token]) -> list[Piece]:
    pieces: list[Piece] = []
    between = ""  # neutral tokens of which it is not known yet to what they belong
    delimited = False  # the last formula
    for token in tokens:
        if token.kind == "neutral":
            between += token.text
            continue
        after_formula = bool(pieces) and pieces[-1].is_formula
        if token.kind == "words" or (token.text.startswith("^") and not after_formula):
            _add_words(pieces, between + token.text)
        elif after_formula and _joined(pieces[-1].text, between, token, delimited):
            pieces[-1] = Piece(pieces[-1].text + between + token.text, True)
            delimited = token.delimited
        else:
            if between or after_formula:
                _add_words(pieces, between)
            pieces.append(Piece(token.text, True))
            delimited = token.delimited
        between = ""
    if between:
        _add_words(pieces, between)
    return pieces


def _add_words(pieces: list[Piece], words: str) -> None:
    if pieces and not pieces[-1].is_formula:
        words = pieces.pop().text + words
    pieces.append(Piece(words, False))


def _joined(formula: str, between: str, token: _Token, delimited: bool) -> bool:
    """Whether a formula goes on: as typed over blanks and commas, beside a delimiter where nothing
    or an operator stands between."""
    if not (delimited or token.delimited):
        return not re.search(r"(?<!\\)[.!?;:(\[]", between)
    if delimited and token.delimited:
        return False
    if not between:
        return True
    operates = _OPERATES_FIRST.match(token.text) if delimited else _OPERATES_LAST.search(formula)
    return bool(operates) and not between.strip()


def _end(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed; 0 if it is not."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place + 1 if text[place] in _CLOSING[text[start]] else 0
    return 0
