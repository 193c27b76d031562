"""What `--stage=solve` is asked, and the questions that a flag names."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from malt_jax.tasks.task import id_field, text_field
from malt_jax.workdir import storage

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The flags of `--stage=solve`."""

    question: str = ""  # the one question, if there is no file
    file: str = ""  # of questions; "-" is standard input
    votes: int = 0  # passes a question; 0: config.eval.votes
    json: bool = False  # JSON lines on a terminal as well
    base: bool = False  # under the base model

    def questions(self) -> list[Row]:
        """What is asked: each `question`, and its `id` if it has one.

        Raises ValueError naming the flag, file and line of what cannot be read or is empty.
        """
        if self.file and self.question:
            raise ValueError("--question and --questions: give one of them")
        if not self.file:
            if not self.question.strip():
                raise ValueError(
                    "--question: empty; give --question=TEXT, or --questions=FILE ('-' is standard "
                    "input) with one a line"
                )
            return [{"question": self.question}]
        place = f"--questions={self.file}"
        questions = _questions(place, _read(self.file, place))
        if not questions:
            raise ValueError(f"{place}: no question in it; write one a line")
        return questions


NOTHING = Asked()


def _read(file: str, place: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else storage.at(file).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{place}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 ({error}); convert it") from error


def _questions(place: str, text: str) -> list[Row]:
    """A question a line, or JSON lines, if the first that says something is a JSON object. Blank
    lines are passed over."""
    lines = [(i, line.strip()) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if lines and _is_object(lines[0][1]):
        return [_row(f"{place}: line {i}", line) for i, line in lines]
    return [{"question": line} for _, line in lines]


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _row(place: str, line: str) -> Row:
    try:
        row = json.loads(line, object_pairs_hook=storage.distinct)
        if not isinstance(row, dict):
            raise ValueError("not a JSON object, as the first line is")
        question, name = text_field(row, "question"), id_field(row, "id")
        if not question.strip():
            raise ValueError("the question is empty")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: {error}") from error
    return ({"id": name} if name else {}) | {"question": question}
