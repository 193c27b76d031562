"""Systems as `results.json` and `comparison.json` describe them.

Files of earlier versions hold names alone; what those say is read here and nowhere else.
"""

import re
from collections.abc import Mapping
from typing import Any

from malt_jax.types import System, parse_system

_VOTES = 3  # of files that do not say


def by_name(results: Mapping[str, Any]) -> dict[str, System]:
    """The systems of a `results.json`, in its order. Raises ValueError as `parse_system` does."""
    described = results.get("described") or {}
    return {
        name: parse_system(described[name]) if name in described else before(name, results.get("k"))
        for name in results["systems"]
    }


def before(name: str, k: int | None = None) -> System:
    """What the name of a row says in a file of an earlier version: "sa", "ma_mv", "star_sa_mv",
    "n_4_sa_mv", "malt_mv in DIRECTORY". Votes are over `k` answers; the roles are not known."""
    row = name.partition(" in ")[0]
    words = row.split("_")
    votes = (k or _VOTES) if "mv" in words else 1
    untrained = [] if "star" in words else [w for w in words if w in ("sa", "ma", "debate")]
    suffix = ", vote" if votes > 1 else ""
    match untrained:
        case ["sa", *_]:
            return System(row, f"single agent{suffix}", "base", "single", (), votes)
        case ["ma", *_]:
            return System(row, f"untrained team{suffix}", "base", "team", (), votes)
        case ["debate", *_]:
            return System(row, "debate", "base", "debate", (), k or _VOTES)
    return System(row, f"MALT{suffix}", "trained", "team", (), votes)


def swept_before(name: str) -> tuple[str, float] | None:
    """The setting and the value that a sweep's row of an earlier version is named by: "n_2_mv"."""
    parts = re.fullmatch(r"(.+?)_(\d+(?:\.\d+)?)((?:_[a-z]+)*)", name)
    return (parts[1], float(parts[2])) if parts else None
