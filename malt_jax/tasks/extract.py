"""Where an answer stands in a completion, and how a task holds it to a reference."""

import re
from collections.abc import Callable
from typing import NamedTuple

_FINAL = re.compile(r"final\s+answer[\s*_]*(?:is)?[\s*_]*[:\uff1a]", re.IGNORECASE)
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"(?<!#)####(?!#)(.*)")
_MARKDOWN = " \t\r\n*_`"


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

    The last "Final Answer:", then the last boxed expression, then "####" on the last line that is
    not blank (elsewhere four hashes are a Markdown heading).
    """
    marks = []
    finals = list(_FINAL.finditer(text))
    if finals:
        tail = _statement(text[finals[-1].end() :])
        marks.append((boxed(tail) or tail, "final_answer"))
    if (inside := boxed(text)) is not None:
        marks.append((inside, "boxed"))
    closing = text.rstrip().rpartition("\n")[2]
    if match := _HASHES.search(closing):
        marks.append((match[1].strip(_MARKDOWN), "hashes"))
    return marks


def boxed(text: str) -> str | None:
    r"""The inside of the last `\boxed{...}` or `\fbox{...}` whose braces balance."""
    inside, latest = None, -1
    open_braces: list[int] = []
    for match in _BRACE.finditer(text):
        if match["box"]:
            open_braces.append(match.end())
        elif match[0] == "{":
            open_braces.append(-1)
        elif match[0] == "}" and open_braces and (start := open_braces.pop()) > latest:
            inside, latest = text[start : match.start()].strip(), start
    return inside


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
