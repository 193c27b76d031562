"""Where an answer stands in a completion, and how a task holds it to a reference."""

import re
from collections.abc import Callable
from typing import NamedTuple

_FINAL = re.compile(r"final\s+answer[\s*_]*(?:is)?[\s*_]*[:\uff1a]", re.IGNORECASE)
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox|framebox)\s*\{)|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"(?<!#)####(?!#)(.*)")
_MARKDOWN = " \t\r\n*_`"
# What stands between the boxes of one answer: "\boxed{5}$ and $\boxed{6}".
_BETWEEN_BOXES = re.compile(
    r"(?:\\[()]|[ \t$,;]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])|\\text\s*\{ ?(?:and|or) ?\})*"
)
_STATED = re.compile(r"(?<![A-Za-z])answer[\s*_]*(?:is\b[\s*_]*:?|[:\uff1a])", re.IGNORECASE)
# A sentence or line that is over: something stands behind it.
_OVER = re.compile(r"(?:(?<=\S)[.!][*_]*\s+|\s*\n\s*)(?=\S)")
# "18. No, wait: 20": what stands before is withdrawn.
_WITHDRAWN = re.compile(
    r"(?:[.?!;,$*]|\s[-\u2013\u2014])\s*(?:no(?=[,.!:]|\s+(?:wait|that|it|this)\b)"
    r"|(?:oh\s+)?wait(?=[,.!:;]|\s+(?:no|that|it|i)\b)|(?<=[.?!;$*] )actually\b|oops\b|correction\b"
    r"|scratch\s+that\b|i\s+mean\b|or\s+rather\b)(?:[\s,.:;!]*no\b(?=[,.!:]))?[\s,.:;!]*",
    re.IGNORECASE,
)
_RESTATED = 60  # letters and digits that a question has in common with itself alone
_HEADING = r"(?:question|problem|exercise|instruction|user|human|q)\s*\d*[ \t*]*[:\uff1a]"
# What is asked for under a heading right behind it is no answer.
_ANSWERED = re.compile(
    rf"answer[\s*_]*(?:is\b|[:\uff1a])(?![\s*:#]*{_HEADING})|\\(?:boxed|fbox|framebox)|####",
    re.IGNORECASE,
)
_ANOTHER_QUESTION = re.compile(rf"(?:^|\n)[ \t#*]*{_HEADING}|(?<![A-Za-z])Human:", re.IGNORECASE)


class Undecided(Exception):
    """An answer that cannot be compared within any reasonable limit."""


class Rules(NamedTuple):
    """How a task finds answers and holds them to one reference.

    `truth` is the canonical reference. `read` turns a marked answer into its canonical form, or
    None. `fallback` finds an answer in a completion that marks none; `anywhere` is content with
    less. `agree` compares with `truth`, and may raise Undecided.
    """

    truth: str
    read: Callable[[str], str | None]
    fallback: Callable[[str], str | None]
    anywhere: Callable[[str], str | None]
    agree: Callable[[str, str], bool]


def marked(text: str) -> list[tuple[str, str]]:
    """The (answer, rule) pairs that `text` marks as its answer, most trusted first.

    The last "Final Answer:", then the last boxed expression with those right beside it, then "####"
    on the last line that is not blank (elsewhere four hashes are a Markdown heading).
    """
    marks = []
    finals = list(_FINAL.finditer(text))
    if finals:
        tail = _statement(text[finals[-1].end() :])
        marks.append((", ".join(_last_boxes(tail)) or tail, "final_answer"))
    if boxes := _last_boxes(text):
        marks.append((", ".join(boxes), "boxed"))
    closing = text.rstrip().rpartition("\n")[2]
    if match := _HASHES.search(closing):
        marks.append((match[1].strip(_MARKDOWN), "hashes"))
    return marks


def boxed(text: str) -> str | None:
    r"""The inside of the last `\boxed{...}` (or fbox, framebox) whose braces balance."""
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]].strip() if boxes else None


def stated(text: str) -> list[str]:
    """What follows each "answer is" and "Answer:", on the first line that is not blank, and up to
    the next one."""
    marks = list(_STATED.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    statements = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=False)]
    return [_statement(statement) for statement in statements]


def corrected(text: str) -> str:
    """What a statement says after it withdrew what it said ("18? No, 20" is "20"), or all of it."""
    return _WITHDRAWN.split(text)[-1]


def concluded(text: str) -> str | None:
    """What the last "answer is" or "Answer:" says, if its sentence is over: where the text is cut
    short, nothing of that is lost."""
    marks = list(_STATED.finditer(text))
    tail = text[marks[-1].end() :].lstrip(_MARKDOWN) if marks else ""
    over = _OVER.search(tail)
    return tail[: over.start()].strip(_MARKDOWN) if over else None


def first_question(text: str, question: str = "") -> str:
    """A completion up to where it goes on, after its answer, to another question of its own. One
    that is `question` again, under a heading, is not another."""
    answered = _ANSWERED.search(text)
    asked = _letters(question)
    for heading in _ANOTHER_QUESTION.finditer(text, answered.end()) if answered else ():
        restated = _letters(text[heading.end() :].lstrip(_MARKDOWN).partition("\n")[0])[:_RESTATED]
        if not restated or restated not in asked:
            return text[: heading.start()]
    return text


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _last_boxes(text: str) -> list[str]:
    """The insides of the last box and of those right before it on its line, each once."""
    boxes = _boxes(text)
    first = len(boxes) - 1
    while first > 0 and _BETWEEN_BOXES.fullmatch(text, boxes[first - 1][2] + 1, boxes[first][0]):
        first -= 1
    insides = [text[start:end].strip() for _, start, end in boxes[max(first, 0) :]]
    return list(dict.fromkeys(insides))


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """Of each balanced box that stands behind the ones before it: where its command and its inside
    start, and where that ends."""
    boxes: list[tuple[int, int, int]] = []
    open_braces: list[tuple[int, int]] = []
    for match in _BRACE.finditer(text):
        if match["box"]:
            open_braces.append((match.start(), match.end()))
        elif match[0] == "{":
            open_braces.append((-1, -1))
        elif match[0] == "}" and open_braces:
            command, start = open_braces.pop()
            if start > (boxes[-1][1] if boxes else -1):
                boxes.append((command, start, match.start()))
    return boxes


def _statement(tail: str) -> str:
    """The first line that says something, with the lines that close its braces and displays."""
    lines = tail.strip(_MARKDOWN).splitlines() or [""]
    for count in range(1, len(lines) + 1):
        text = "\n".join(lines[:count])
        if not _is_open(text):
            return text.strip(_MARKDOWN)
    return lines[0].strip(_MARKDOWN)


def _is_open(text: str) -> bool:
    return (
        text.count("{") > text.count("}")
        or text.count(r"\begin{") > text.count(r"\end{")
        or text.count(r"\[") > text.count(r"\]")
        or text.count("$$") % 2 == 1
    )
