"""The worker's end of the conversation: a JSON object a line, on stdin and back on stdout.

Stands alone on the standard library, since every peer's virtual environment runs it.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any


def serve(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers requests until stdin ends. An error is answered as {"error": text}, and serving
    goes on.

    Every answer carries `peak_rss_bytes` of this process so far. What libraries print to stdout
    goes to stderr, so that it cannot be taken for an answer.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception as error:  # whatever a peer raises is its result
            answer = {"error": f"{type(error).__name__}: {error}"}
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers.write(json.dumps(answer | {"peak_rss_bytes": kibibytes * 1024}) + "\n")
        answers.flush()


def evenly(items: list[Any], most: int) -> list[list[Any]]:
    """Splits into the fewest batches of at most `most` items, their sizes at most one apart."""
    parts = -(-len(items) // most)
    return [items[i * len(items) // parts : (i + 1) * len(items) // parts] for i in range(parts)]


def cut(tokens: list[int], stop_ids: list[int]) -> list[int]:
    """A row up to and including its first stop id; all of it if it has none."""
    ends = (i + 1 for i, token in enumerate(tokens) if token in stop_ids)
    return tokens[: next(ends, len(tokens))]
