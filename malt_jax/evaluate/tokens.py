"""What a question costs: prompt tokens where a shared prefix is computed once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IDS = "prompt_token_ids"
# The columns that tell which prompts share what.
SHARING = ("policy", "role", IDS)


def novel(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many tokens of each prompt no earlier one of the same policy begins with: what is
    computed anew where every prefix is computed once. Keys and values depend on the adapter, so
    that policies share nothing; rows without a `policy` are told apart by their roles."""
    before: dict[str, list[np.ndarray]] = {}
    counts = []
    for row in rows:
        prompt = np.asarray(row[IDS], np.int32)
        earlier = before.setdefault(row["policy"] or row["role"], [])
        counts.append(len(prompt) - max((_common(prompt, other) for other in earlier), default=0))
        earlier.append(prompt)
    return counts


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading tokens are the same."""
    length = min(len(a), len(b))
    unlike = a[:length] != b[:length]
    return int(unlike.argmax()) if unlike.any() else length
