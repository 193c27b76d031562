"""Mathematics in prose: which formula a sentence answers with, and formulas typed without LaTeX."""

import re
from collections.abc import Callable

from malt_jax.tasks import numeric

MAX_SENTENCE = 1000  # characters

_SPANS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_SAYS = re.compile(
    r"\b(?:is|are|be|equals?(?:\s+to)?|gives?|gets?|have|has|obtain|yields?)\b\s*:?|=",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(?:where|since|because|when|if|which|with|assuming|given|so that)\b", re.IGNORECASE
)
_BETWEEN = re.compile(r"[\s,;]*(?:and|or)?[\s,;]*")
_REMARK = re.compile(r"(?<=\S)\s*\([^()]*(?<![\\A-Za-z])[A-Za-z]{2,}[^()]*\)[\s.]*$")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_NO_WORDS = {"and", "or", "pi", "theta", "infinity"}
_NO_WORDS |= {"sqrt", "sin", "cos", "tan", "log", "ln", "exp"}
_UNITS = re.compile(r"(?:(?<=[\d)}\]π])|(?<=pi))(?:\s+[a-z]{2,})+[\s.]*$")
_SENTENCE_END = re.compile(r"[.!?]\s+(?=[A-Z])")

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_TYPED: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"(?<=[\w)\]}])\s*\*\*\s*(?=[\w({\\-])"), "^"),
    (re.compile(r"(?<=[\w)\]}])\s*\*\s*(?=[\w(\\])"), r"\\cdot "),
    (re.compile("[·⋅]"), r"\\cdot "),
    (re.compile("×"), r"\\times "),
    (re.compile(r"π|(?<![A-Za-z\\])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"θ|(?<![A-Za-z\\])theta(?![A-Za-z])"), r"\\theta "),
    (re.compile(r"∞|(?<![A-Za-z\\])(?:infinity|infty|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?:√|(?<![A-Za-z\\])sqrt)\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?:√|(?<![A-Za-z\\])sqrt)\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile("<="), r"\\le "),
    (re.compile(">="), r"\\ge "),
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\^(-\d+)"), r"^{\1}"),
]
_EXPONENT = re.compile(r"\^(\d\d+)")  # in LaTeX that would be a power and a factor


def spans(text: str) -> list[str]:
    """The formulas between math delimiters."""
    return ["".join(groups).strip() for groups in _SPANS.findall(text)]


def answering_math(text: str) -> str:
    """The formulas, as a list, that a statement with math delimiters answers with, or "".

    Those after the last "is" or "=" that is outside of them, and before a remark ("where $r=2$"):
    the first of these, and others that follow it after a comma, "and" or "or". So the unit in
    "$5$ cm$^2$" is none.
    """
    answers: list[str] = []
    end = 0
    for match in _SPANS.finditer(text):
        gap = text[end : match.start()]
        if answers and _ASIDE.search(gap):
            break
        if not answers or _BETWEEN.fullmatch(gap):
            answers.append("".join(filter(None, match.groups())).strip())
        elif _SAYS.search(gap):
            answers = ["".join(filter(None, match.groups())).strip()]
        end = match.end()
    return ", ".join(answers)


def answer(text: str, canonical: Callable[[str], str | None]) -> str:
    """What a statement without math delimiters answers with: the text itself if it is a formula, a
    word, or a number with its unit; of a sentence what follows the last "is", or its number."""
    if len(text) > MAX_SENTENCE:
        return text
    text = _REMARK.sub("", text)
    if _is_plain(text, canonical):
        return text
    main = _ASIDE.split(text, maxsplit=1)[0].rstrip(" ,;") or text
    if _is_plain(main, canonical):
        return main
    says = list(_SAYS.finditer(main))
    if not says:
        return text
    said = main[says[-1].end() :]
    for formula in (said, _UNITS.sub("", said)):
        if _is_plain(formula, canonical):
            return formula
    value = numeric.stated(main)
    return text if value is None else numeric.canonical(value)


def first_sentence(text: str) -> str:
    """Up to the first full stop before another sentence."""
    return _SENTENCE_END.split(text, maxsplit=1)[0]


def latex(text: str) -> str:
    """Formulas as they are typed (2*pi, x**2, x², sqrt(3), <=) in LaTeX."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", text)
    if "\\" not in text:
        text = _EXPONENT.sub(r"^{\1}", text)
    for typed, command in _TYPED:
        text = typed.sub(command, text)
    return text


def _is_plain(text: str, canonical: Callable[[str], str | None]) -> bool:
    """Whether a text is no sentence: of a word at most, or a number and a unit."""
    words = [word for word in _WORD.findall(text) if word not in _NO_WORDS]
    return bool(text.strip()) and (
        len(words) < 2 or numeric.whole(canonical(text) or "") is not None
    )
