"""Rules with faults, in a module of their own: the grading process imports them by name."""

import ctypes
import os
import time
from collections.abc import Callable, Sequence

from malt_jax.tasks.extract import Rules
from malt_jax.tasks.task import Choices
from malt_jax.types import Question


def hangs(answer: str, choices: Choices) -> Rules:
    """Waits for ever, without computing, on "hang"; computes for ever on "spin"; all else is
    right."""
    return _reading(_hang)


def dies(answer: str, choices: Choices) -> Rules:
    """Ends its process, crashes it, fills its memory or fails, as the completion says; all else is
    right."""
    return _reading(_die)


def prints(answer: str, choices: Choices) -> Rules:
    """Writes to standard output, where the replies go; nothing is right."""
    return _reading(_print, right=False)


def _reading(read: Callable[[str], str], right: bool = True) -> Rules:
    return Rules("", read, read, read, lambda answer, truth: right)


def _hang(completion: str) -> str:
    if completion == "hang":
        time.sleep(3600)
    while completion == "spin":
        pass
    return completion


def _die(completion: str) -> str:
    match completion:
        case "exit":
            os._exit(0)
        case "crash":
            ctypes.string_at(0)
        case "memory":
            return "x" * (1 << 34)
        case "fault":
            return completion.no_such_attribute  # type: ignore[attr-defined, no-any-return]
    return completion


def _print(completion: str) -> str:
    print('["correct", "planted", "", ""]', flush=True)
    os.write(1, b'["correct", "planted", "", ""]\n')
    return "1"


def counts(answer: str, choices: Choices) -> Rules:
    """Notes in the file that the reference names that it was asked for; all is right."""
    with open(answer, "a") as file:
        file.write("x")
    return Rules("", _marked, lambda text: text, lambda text: text, lambda text, truth: True)


def _marked(text: str) -> str | None:
    return None if text == "unreadable" else text


def refuses(answer: str, choices: Choices) -> Rules:
    """Cannot read the reference "bad", nor judge the completion "bad"."""
    if answer == "bad":
        raise ValueError("planted: a bad reference")
    return _reading(_refuse)


def _refuse(completion: str) -> str:
    if completion == "bad":
        raise ValueError("planted: a bad completion")
    return completion


def scores(completions: Sequence[str], questions: Sequence[Question]) -> list[float]:
    """A task's own grader: the number that a completion is; "exit" ends the process, "spin" takes
    for ever, "short" gives a score too few."""
    given = []
    for completion in completions:
        _hang(_die(completion))
        given.append(float(completion) if completion != "short" else 0.0)
    return given[: len(given) - ("short" in completions)]


def asks(completions: Sequence[str], questions: Sequence[Question]) -> list[float]:
    """Right where a completion says the question, the reference and the first choice."""
    said = [f"{q.text} {q.answer} {q.choices[0][1]}" for q in questions]
    return [float(text == right) for text, right in zip(completions, said, strict=True)]


def warm_up_fails() -> None:
    """A grading process that does not start."""
    raise ImportError("planted")
