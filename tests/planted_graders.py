"""Graders with faults, in a module of their own: the grading process imports them by name."""

import ctypes
import os
import time
from typing import Any

from malt_jax.types import Grade


def hangs(completion: str, answer: str, **_: Any) -> Grade:
    """Waits for ever, without computing, on "hang"; computes for ever on "spin"."""
    if completion == "hang":
        time.sleep(3600)
    while completion == "spin":
        pass
    return Grade("correct", completion)


def dies(completion: str, answer: str, **_: Any) -> Grade:
    """Ends its process, crashes it, fills its memory or fails, as the completion says."""
    match completion:
        case "exit":
            os._exit(0)
        case "crash":
            ctypes.string_at(0)
        case "memory":
            return Grade("wrong", "x" * (1 << 34))
        case "fault":
            return Grade("wrong", completion.no_such_attribute)  # type: ignore[attr-defined]
    return Grade("correct", completion)


def prints(completion: str, answer: str, **_: Any) -> Grade:
    """Writes to standard output, where the replies go."""
    print('["correct", "planted", "", ""]', flush=True)
    os.write(1, b'["correct", "planted", "", ""]\n')
    return Grade("wrong", "1")


def warm_up_fails() -> None:
    """A grading process that does not start."""
    raise ImportError("planted")
