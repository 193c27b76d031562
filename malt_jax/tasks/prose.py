r"""Mathematics in prose: which formula a sentence answers with, and formulas typed without LaTeX.

What the words around formulas say decides which formula is the answer, and whether the answer is
what that formula says: "not $5$", "more than $5$" and "$5$ times $6$" are not 5.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from malt_jax.tasks import numeric, quantities
from malt_jax.tasks.extract import corrected
from malt_jax.tasks.pieces import SPANS, Piece, cut, is_wording

MAX_SENTENCE = 1000  # characters

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm)\s*\{([^{}]*)\}")
_VERB = (
    r"(?:\b(?:is|are|be|equals?|gives?|gets?|have|has|obtain|yields?|becomes?|must|leaves?|makes?|takes?"
    r"|contains?|(?:evaluates?|simplif\w+|reduces?|amounts?|comes?(?:\s+out)?|adds?\s+up|sums?)\s+to"
    r"|(?:expressed|written)\s+as)\b|=)"
)
_SAYS = re.compile(_VERB, re.IGNORECASE)
# "is therefore equal to $5$", but not "is the number of ways to choose $5$".
_SAYS_NEXT = re.compile(
    rf"{_VERB}(?:\s+(?:\w+ly|to|be|the|an?|just|then|thus|also|found|total|of|equal|now|only|about"
    r"|either|both|answer|value|number|simply))*[\s:]*$",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:so|then|thus|hence|therefore|implies|giving|meaning|we)\b|[\u21d2\u2234]", re.IGNORECASE
)
_REASON = re.compile(
    r"\b(?:where|since|because|when|if|which|with|assuming|given|so\s+that|instead|rather|as)\b",
    re.IGNORECASE,
)
_LEADS = re.compile(r"\W*(?:since|because|when|if|as|given|let|for|with|suppose)\b", re.IGNORECASE)
# A unit of the first may stand before the conjunction.
_BETWEEN = re.compile(
    r"[\s,;]*(?:(?:and|or)\b)?(?:\s*(?:also|maybe|perhaps|possibly|even))?[\s,;]*"
    r"|\s*(?:(?:square|cubic)\s+)?[A-Za-z]+\.?(?:\^\{?\d\}?)?(?:\s*,|,?\s+(?:and|or))\s+"
)
# In a formula the unit of a member of a list: "90\text{ square units}, 17".
_UNIT_OF_MEMBER = re.compile(
    r"(?<=[\w)}])\s*\\(?:text|mbox|mathrm|textnormal)\s*\{([a-z.\s]+)\}(?:\s*\^\s*\{?\d\}?)?(?=\s*[,;])"
)
_NO_UNIT = re.compile(
    r"\b(?:and|or|if|when|where|since|because|for|with|is|are|not|of|to|hundred|[a-z]{1,4}illion"
    r"|thousand)\b"
)
_DENIES = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|except|excluding|without|unlike|(?:rather|other)\s+than|instead\s+of)"
    r"|n['\u2019]t)(?:\s+(?:be|equal|to|for|at|the|just|simply|an?))*[\s:]*$",
    re.IGNORECASE,
)
# Numbers in phrases of time, place and condition give way to others.
_BESIDE = re.compile(
    r"(?:\b(?:after|before|in|for|from|per|every|each|during|within|at|by|choose|sides?|when|if|let)"
    r"|(?:^|\bout\s)of)(?:\s+(?:the|an?|all))?\s*$",
    re.IGNORECASE,
)
# Words that make another value, or a bound, of the formula after or before them.
_CHANGES_NEXT = re.compile(
    r"\b(?:half|twice|double|triple|thrice|(?:more|less|greater|fewer|larger|smaller)\s+than"
    r"|at\s+(?:least|most)|up\s+to|no\s+more|above|below|between|from|exceeds?|undefined\s+at"
    r"|fails?\s+at|(?:squares?|cube|squared|root|multiples?|factors?|divisors?|powers?|reciprocal"
    r"|inverse|logarithm|half|third|quarter|percent|negative|opposite|factorial"
    r"|absolute\s+value)\s+of|plus|minus"
    r"|times|over)\s*(?:the\s+)?$",
    re.IGNORECASE,
)
_NEGATES = re.compile(r"(?:^|\s)(?:minus|negative)\s*$", re.IGNORECASE)
_CHANGES_LAST = re.compile(
    r"[\s,]*(?:squared|cubed|and\s+(?:an?|one|two|three)[\s-](?:half|third|quarter|fourth)s?"
    r"|(?:ten|hundred|thousand|million)ths?|factorial|percent\s+of|to\s+the\s+power|in\s+base|base"
    r"|or\s+(?:more|less|fewer|greater|larger|smaller|higher|above|below))\b",
    re.IGNORECASE,
)
_OPERATES = re.compile(
    r"(?:^|\s)(?:to|through|times|plus|minus|over|divided\s+by|vs\.?|versus|modulo|mod"
    r"|(?:less|more|fewer|greater)\s+than)\s*$|^\s*by\s*$",
    re.IGNORECASE,
)
_IS_SHARE = re.compile(r"\\[dt]?frac|/|%")  # "$\frac12$ of $10$"
_REJECTED = re.compile(r"\s*\(?\s*(?:rejected|extraneous|discarded|invalid)\b", re.IGNORECASE)
_SCALE = re.compile(r"\s*(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_DEGREES = re.compile(r"\s*deg(?:rees?)?\b", re.IGNORECASE)
_NOTHING = re.compile(
    r"\W*(?:there\s+(?:is|are)\s+|it\s+(?:is|has)\s+)?(?:no|none|never|undefined|impossible"
    r"|indeterminate|(?:cannot|can't|does\s+not|do\s+not)\s+(?!equal)|all|every|any|infinitely)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\s*(?:January|February|March|April|May|June|July|August|September|October|November|December)(?![a-z])"
)
_CASES = re.compile(r"\b(?:if|when|otherwise|else)\b", re.IGNORECASE)
_ROUNDED = re.compile(r"\b(?:decimal|significant|nearest)\b", re.IGNORECASE)
_BOUNDS = re.compile(r"[<>\u2264\u2265]|\\[lg](?:eq?|t)(?![a-z])")
_PREDICATE = re.compile(r"\s*(is\s+|are\s+)?(?:an?\s+|the\s+)?([A-Za-z-]+)[\s.]*", re.IGNORECASE)
_IS = re.compile(r"\s*(?:is|are)\b", re.IGNORECASE)
_OPERATES_FIRST = re.compile(r"\s*[*/^+=](?![A-Za-z])")
_CALLED = re.compile(  # "$p - q$ is the answer": what is before it is
    r"(?<=\S)(?:\\text\s*\{)?\s+(?:is|are)\s+(?:the|our|my)\s+(?:final\s+|correct\s+)?"
    r"(?:answer|result|solution)s?\b[\s.!]*\}?[\s.]*$",
    re.IGNORECASE,
)
_NAMELY = re.compile(r"\b(?:i\.\s?e\.|e\.\s?g\.)")
_EDGES = re.compile(
    r"^(?:[\s,;:.~](?!\d)|\\[ ,;:!])+|(?:[\s,;:.~]|(?<!\\)\\[ ,;:!]|(?<!\\)\\$|\\q?quad)+$"
)
_REMARK = re.compile(r"(?<=\S)\s*\([^()]*(?<![\\A-Za-z])[A-Za-z]{2,}[^()]*\)[\s.]*$")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][$)]))\s+(?=[A-Z])")

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_TYPED: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"(?<=[\w)\]}])\s*\*\*\s*(?=[\w({\\-])"), "^"),
    (re.compile(r"(?<=[\w)\]}])\s*\*\s*(?=[\w(\\])"), r"\\cdot "),
    (re.compile("[·⋅]"), r"\\cdot "),
    (re.compile("×"), r"\\times "),
    (re.compile(r"π|(?<![A-Za-z\\])pi(?![A-Za-rt-z])"), r"\\pi "),
    (re.compile(r"θ|(?<![A-Za-z\\])theta(?![A-Za-z])"), r"\\theta "),
    (re.compile(r"∞|(?<![A-Za-z\\])(?:infinity|infty|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?:√|(?<![A-Za-z\\])sqrt)\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?:√|(?<![A-Za-z\\])sqrt)\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile("!=|≠"), r"\\ne "),
    (re.compile("<="), r"\\le "),
    (re.compile(">="), r"\\ge "),
    (re.compile(r"(?<![\w.)/^{])(\d+)/(\d+)\s*(?=\\pi|i(?![A-Za-z]))"), r"\\frac{\1}{\2}"),
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\^(-\d+)"), r"^{\1}"),
]
_EXPONENT = re.compile(r"\^(\d\d+)")  # in LaTeX that would be a power and a factor


class _Answer(NamedTuple):
    """The formulas that a statement answers with, which are those of pieces[start:end]."""

    formulas: list[str]
    start: int
    end: int


def spans(text: str) -> list[str]:
    """The formulas between math delimiters."""
    return ["".join(groups).strip() for groups in SPANS.findall(text)]


def first_sentence(text: str) -> str:
    """Up to the first full stop before another sentence."""
    return _SENTENCE_END.split(text, maxsplit=1)[0]


def answer(text: str) -> str | None:
    """What a statement answers with, in LaTeX: its formula, or formulas as a list; of a sentence of
    words what follows the last "is", of other words the text itself. None if the words say that the
    answer is another than the formula."""
    if whole := _TEXT.fullmatch(text.strip()):
        text = whole[1]
    text = _CALLED.sub("", _NAMELY.sub("namely", corrected(text)))
    text = _UNIT_OF_MEMBER.sub(_without_unit, text)
    if len(text) > MAX_SENTENCE:
        return latex(text)
    pieces = _pieces(text)
    opening = _pieces(first_sentence(text))
    if any(p.is_formula for p in opening) and not _SAYS.search(_words(opening)):
        pieces = opening  # the answer, before a sentence about it
    words = _words(pieces)
    formulas = [_trimmed(piece.text) for piece in pieces if piece.is_formula]
    if not formulas:
        return _said(text, words)
    if not re.search("[A-Za-z]", words):
        return latex(", ".join(formulas))
    if _DATE.match(words):
        return latex(text)
    if _NOTHING.match(words) and not pieces[0].is_formula:
        return words
    conclusion = _conclusion(pieces)
    before, after = _words(pieces[: conclusion.start][-1:]), _words(pieces[conclusion.end :][:1])
    if not conclusion.formulas or (_is_changed(pieces, conclusion) and not _ROUNDED.search(words)):
        return None
    value = ", ".join(conclusion.formulas)
    if _NEGATES.search(before):
        return latex(f"-{value}" if numeric.whole(value) is not None else f"-({value})")
    if scale := _SCALE.match(after):
        return latex(f"{value} {scale[1]}")
    if _DEGREES.match(after):
        return latex(f"{value}^\\circ")
    named = _PREDICATE.fullmatch(after)
    if named and (value.endswith("=") or (named[1] and not re.search(r"\d", value))):
        return named[2]  # "ABC is isosceles"
    counted = len(conclusion.formulas) == 1 and not SPANS.search(text) and not _DENIES.search(words)
    if counted and all(numeric.whole(formula) is not None for formula in formulas):
        number = quantities.stated(text)
        return value if number is None else numeric.canonical(number)
    return latex(value)


def _without_unit(match: re.Match[str]) -> str:
    text = match[1].strip()
    is_unit = text in ("m", "g", "s", "h") or is_wording(text)
    return "" if is_unit and not _NO_UNIT.search(text) else match[0]


def latex(text: str) -> str:
    """Formulas as they are typed (2*pi, x**2, x², sqrt(3), <=) in LaTeX."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", text)
    if "\\" not in text:
        text = _EXPONENT.sub(r"^{\1}", text)
    for typed, command in _TYPED:
        text = typed.sub(command, text)
    return text


def _pieces(text: str) -> list[Piece]:
    return [p if p.is_formula else Piece(_TEXT.sub(r" \1 ", p.text), False) for p in cut(text)]


def _words(pieces: Sequence[Piece]) -> str:
    return " ".join(piece.text for piece in pieces if not piece.is_formula)


def _trimmed(formula: str) -> str:
    return _EDGES.sub("", formula)


def _conclusion(pieces: Sequence[Piece]) -> _Answer:
    """The formula after the last verb or conclusion, and before a reason; others that follow it
    after a comma, "and" or "or". A formula that is denied is none, and one in a phrase of time,
    place or condition gives way to the next."""
    answer = _Answer([], 0, 0)
    leads = beside = False
    for place, piece in enumerate(pieces):
        if not piece.is_formula:
            continue
        formula, words = _trimmed(piece.text), _words(pieces[:place][-1:])
        denied = quantities.DENIES_LAST.match(f" {_words(pieces[place + 1 : place + 2])}")
        if answer.formulas and _REASON.search(words) and not leads and not beside:
            break
        if denied or _DENIES.search(words):
            continue
        restarts = (
            not answer.formulas
            or bool(_SAYS_NEXT.search(words) or _CONCLUDES.search(words))
            or (bool(_SAYS.search(words)) and not _is_subject(answer.formulas[-1], words))
            or answer.formulas[-1].endswith("=")
            or (beside and not _BESIDE.search(words))
            or (leads and "," in words)
        )
        if restarts:
            beside, leads = bool(_BESIDE.search(words)), bool(_LEADS.match(words))
            answer = _Answer([formula], place, place + 1)
        elif _BETWEEN.fullmatch(words):
            *others, last = answer.formulas
            if re.search(r"\bor\b", words) and _BOUNDS.search(formula):
                answer = _Answer([*others, f"{last} or {formula}"], answer.start, place + 1)
            else:
                answer = _Answer([*others, last, formula], answer.start, place + 1)
    return answer


def _is_subject(formula: str, words: str) -> bool:
    """Whether a verb says something of this value: "$12$ is the number of ways"."""
    return bool(_IS.match(words) and re.search(r"\d", formula))


def _is_changed(pieces: Sequence[Piece], answer: _Answer) -> bool:
    """Whether the words beside formulas make them another value, a bound, or one of several
    cases."""
    before, after = _words(pieces[: answer.start][-1:]), pieces[answer.end :]
    if len(after) > 1 and (_OPERATES.search(after[0].text) or _OPERATES_FIRST.match(after[1].text)):
        return True
    if len(after) > 1 and _IS_SHARE.search(answer.formulas[-1]) and after[0].text.strip() == "of":
        return True
    return bool(
        len(_CASES.findall(_words(after))) > 1
        or _CHANGES_NEXT.search(before)
        or _CHANGES_LAST.match(_words(after))
        or _REJECTED.match(_words(after[:1]))
        or quantities.MEASURE_GOES_ON.match("".join(piece.text for piece in after))
    )


def _said(text: str, words: str) -> str:
    """What a sentence without a formula answers with: a word."""
    plain = _REMARK.sub("", text)
    main = _REASON.split(words, maxsplit=1)[0].rstrip(" ,;") or words
    said = [part.strip(" .*") for part in _SAYS.split(_REMARK.sub("", main))]
    if len(said) > 1 and len(said[-1].split()) == 1 and not _DENIES.search(said[-1]):
        return said[-1]
    return plain
