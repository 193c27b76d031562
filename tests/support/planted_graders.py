"""Rules with faults, in a module of their own: the grading process imports them by name."""

import ctypes
import os
import time
from collections.abc import Callable

from malt_jax.tasks.extract import Rules
from malt_jax.tasks.task import Choices


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
    return Rules("", read, read, read, lambda found, truth: right)


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


def warm_up_fails() -> None:
    """A grading process that does not start."""
    raise ImportError("planted")
