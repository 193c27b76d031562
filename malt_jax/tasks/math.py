r"""MATH (Hendrycks et al., arXiv 2103.03874): competition problems; the solution boxes its answer.

Equality is decided in two steps: equal canonical forms, and else `equality`. An expression may take
any time to compare: `isolation` bounds it.
"""

import re
from fractions import Fraction

from malt_jax.tasks import numeric, prose, quantities, symbolic
from malt_jax.tasks.equality import MAX_LENGTH, equivalent, split
from malt_jax.tasks.extract import Rules, corrected, marked, stated
from malt_jax.tasks.task import Choices, Hub, Row, Task, answer_field, id_field, text_field
from malt_jax.types import Question

_TEXT = (
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|pmb"
    r"|operatorname)\s*\{([^{}]*)\}"
)
_SCALES = "(?i:hundred|thousand|million|billion|trillion)"
# A unit, but no letter that is a factor: 3\mathrm{i}, 2\text{x}.
_UNIT_TEXT = (
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm)\s*"
    rf"\{{(?!\s*(?:{_SCALES}|[a-fi-kn-rt-zABD-EG-IMO-UX-Z]|\\?pi|[xyz]{{2}})\s*\}})[^{{}}]*\}}"
)
_GREEK = r"\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|rho|sigma|ell|[DTO][a-z]+)"
_GROUP = re.compile(r"(?:\\(?:boldsymbol|bm|pmb|mathbf))?\s*\{")
_ONE_VALUE = re.compile(r"^[^,;]*\d[^,;]*$")  # no point, and not the (C) of a choice
_TRIGONOMETRY = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(
    r"\^\s*(?:\{\s*(?:\\circ|°)\s*\}|\\circ(?![a-z])|°)|°"
    r"|(?<=\d)\s*\\(?:text|mathrm)\s*\{\s*(?:degrees?|deg)\s*\}"
)
_SIDES = re.compile("([=,])")  # of a chain, and members of a list
_REWRITES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"\\(?:left|right|displaystyle|limits)(?![a-zA-Z])"), ""),
    (re.compile(r"(?<=\d)(?:\\!)?,\s*\\!\s*(?=\d{3})"), ""),
    (re.compile(r"(?<!\\)\\[!,;:> ]|~|\\q?quad"), " "),
    (re.compile(r"^\s*(?:\\approx(?![a-zA-Z])|\\sim(?![a-zA-Z])|≈|=)\s*"), ""),
    (re.compile(r"(?<=\d)(?:st|nd|rd|th)$"), ""),
    (re.compile(r",?\s*\\text\s*\{\s*and\s*\}\s*(?=[A-Z\d\\-])|(?<=\w)\s+and\s+(?=[A-Z])"), ", "),
    (re.compile(r"(?<=\d)\^\s*\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}$"), ""),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d|\\pi)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*([\dA-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\\(?:underline|textcolor\s*\{\w+\}|color\s*\{\w+\})(?=\s*\{)"), ""),
    (re.compile(r"\\?%|\\\$|(?<!\\)\$"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3})"), ","),
    (re.compile(r"\\(le|ge|ne)q(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"[\u2212\u2013]"), "-"),
    (re.compile(r"^\s*\{\}"), ""),
]
_UNIT = re.compile(rf"(?:(?<=[\d}})])|(?<=\\pi))\s*{_UNIT_TEXT}(?:\s*\^\s*\{{?\d\}}?)?\s*\.?$")
_UNIT_WORDS = re.compile(
    rf"^(-?[\d.,/]+)(?:\s+(?:(?!{_SCALES})[A-Za-z]{(3,)}|[ckm]m|[km]?g|ft|in|lbs?|oz|hr|mi|yd)"
    r"(?:\^\{{?\d\}}?|[²³])?\.?)+$"
)
# The label of a choice before its value: "(C) 12", "\textbf{(C)}\ 12".
_LABEL = re.compile(
    r"^((?:.*\b(?:option|choice|answer)\b(?:\s+is)?:?)?\s*(?P<open>\\[(\[]|\$)?\s*)"
    r"(?:\\text(?:bf|rm)?\s*\{\s*)?(?:\([A-H]\)|(?<![\w.])[A-H][).])\s*\}?"
    r"(?:\\[ ,;:]|\\q?quad|[~:]|\s)*"
    r"(?=[\d(\[√π-]|\.\d|(?(open)(?!)|\$)|\\(?!(?:text|mbox)\s*\{\s*(?:and|or)\b)|[a-z](?![A-Za-z]))"
)
# \pi r must not become \pir, nor the list "1, 234" a number.
_SPACE = re.compile(
    r"(\\[A-Za-z]+)\s+(?=[A-Za-z])|(?<=\d)(,)\s+(?=\d{3}(?!\d))|(?<=\d)()\s+(?=\d)|\s+"
)
_NAME = re.compile(
    rf"^(?:[A-Za-z]|{_GREEK})(?:_(?:\w|\{{\w+\}}))?(?:\([A-Za-z]\))?"
    r"(?:=|\\in(?![A-Za-z]))(?=[^=]+$)"
)
# 0.1\overline{6}: the digits before the point, after it, and repeated.
_REPEATING = re.compile(r"(-?)(\d{0,9})\.(\d{0,9})\\(?:overline|bar)\{(\d{1,9})\}")


def read_row(row: Row) -> Question:
    """Reads `answer` where the form has it (MATH-500), else the boxed answer of `solution`."""
    own_id = id_field(row, "unique_id") or id_field(row, "idx")
    source = "answer" if "answer" in row else "solution"
    worked = str(row.get("solution") or "").strip()
    boxed = marked(worked)
    solution = f"{worked}\nFinal Answer: ${boxed[0][0]}$" if boxed else ""
    problem = text_field(row, "problem").strip()
    return Question(own_id, problem, answer_field(row, source), solution=solution)


def canonical(latex: str) -> str | None:
    r"""The form in which answers are compared and votes counted; None if nothing is left.

    Without math delimiters, spacing, `\left` and `\right`, degree, percent and dollar signs, a unit
    after a number, a leading "x =", parentheses round one value, and a final full stop; degree
    signs stay beside trigonometric functions; `\dfrac12` as `\frac{1}{2}`;
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
    """The canonical form of a marked answer: what its last "answer is" says, else what the whole
    does."""
    text = _LABEL.sub(r"\1", text)
    if statements := [statement for statement in stated(text) if statement[:1] != "}"]:
        text = prose.first_sentence(corrected(statements[-1]))
    answer = prose.answer(text)
    return None if answer is None else _once(answer)


def _once(text: str) -> str | None:
    """The canonical form of an answer; of a value in several spellings ("1/2, 0.5") that of one."""
    answer, parts = canonical(text), split(text, ", ")
    if numeric.whole(answer or "") is not None or len(set(parts)) < max(2, len(parts)):
        return answer
    members = {canonical(part) for part in parts}
    return members.pop() if len(members) == 1 else answer


def fallback(text: str) -> str | None:
    """What follows the last "answer is" or "Answer:", else the last math span of the completion."""
    if statements := stated(text):
        return read(prose.first_sentence(corrected(statements[-1])))
    spans = prose.spans(text)
    return read(f"${spans[-1]}$") if spans else None


def rules(answer: str, choices: Choices = ()) -> Rules:
    """How answers are found, and held to this reference.

    Raises:
        ValueError: if the reference answer is blank, or a solution without a boxed answer.
    """
    truth = reference(answer)
    if truth is None:
        raise ValueError(f"reference answer {answer!r:.80} holds no answer")
    return Rules(
        truth, read, fallback, lambda text: fallback(text) or quantities.last(text), equivalent
    )


def _strip_once(text: str) -> str:
    text = text.strip().strip("$").removesuffix(".").strip()
    for pattern, plain in _REWRITES:
        text = pattern.sub(plain, text)
    text = _ungrouped(text.strip())
    text = "".join(map(_without_degrees, _SIDES.split(text)))
    text = _UNIT_WORDS.sub(r"\1", _UNIT.sub("", text))
    text = re.sub(_TEXT, r"\1", text)
    text = text.lower() if text.isalpha() and len(text) > 1 else text
    text = _NAME.sub("", _SPACE.sub(_kept_space, text))
    if repeating := _REPEATING.fullmatch(text):
        return numeric.canonical(_repeating(*repeating.groups()))
    value = numeric.whole(text) if text[:1] != "(" else None
    return text if value is None else numeric.canonical(value)


def _without_degrees(side: str) -> str:
    """A side of a chain, or a member of a list, without degree signs. Beside a trigonometric
    function they count: in "x = \\arcsin 0.5 = 30^\\circ" for the first side alone."""
    return _DEGREES.sub(r"^\\circ" if _TRIGONOMETRY.search(side) else "", side)


def _ungrouped(text: str) -> str:
    """Without braces, bold or not, around the whole, or parentheses round one value."""
    if len(text) > MAX_LENGTH:
        return text
    if (head := _GROUP.match(text)) and _closes(text, head.end() - 1, "{}"):
        return text[head.end() : -1].strip()
    if text[:1] == "(" and _closes(text, 0, "()") and _ONE_VALUE.search(text):
        return text[1:-1].strip()
    return text


def _closes(text: str, start: int, brackets: str) -> bool:
    """Whether the bracket that opens at `start` is closed by the last character."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == brackets[0]) - (text[place] == brackets[1])
        if not depth:
            return place == len(text) - 1
    return False


def _kept_space(match: re.Match[str]) -> str:
    before = match[1] or match[2] or match[3]
    return "" if before is None else f"{before} "


def _repeating(sign: str, whole: str, fixed: str, repeated: str) -> Fraction:
    nines = (10 ** len(repeated) - 1) * 10 ** len(fixed)
    value = int(whole + fixed or "0") * Fraction(1, 10 ** len(fixed)) + Fraction(
        int(repeated), nines
    )
    return -value if sign else value


TASK = Task(
    name="math",
    hub=Hub("DigitalLearningGmbH/MATH-lighteval", "default", {"train": "train", "eval": "test"}),
    answer_hint="an expression in LaTeX",
    read_row=read_row,
    reference=reference,
    rules=rules,
    warm_up=symbolic.warm_up,
)
