"""Whether a comparison is of the results that are there now."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from malt_jax.workdir import storage


def fingerprint(workdir: Path) -> str:
    """A hash of what a comparison takes from a work directory's evaluation: its outcomes, and its
    results but for the seconds they took. Another run of the stage that finds the same gives the
    same. Empty if nothing was evaluated there."""
    results, outcomes = (workdir / "eval" / name for name in ("results.json", "outcomes.parquet"))
    if not results.exists() or not outcomes.exists():
        return ""
    content = json.loads(results.read_text(encoding="utf-8"))
    content.pop("seconds", None)
    digest = hashlib.sha256(outcomes.read_bytes())
    digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


def changed(workdir: Path, inputs: Mapping[str, str]) -> list[str]:
    """The work directories with other results than those that were compared. `inputs` are the
    fingerprints of then by directory, absolute or below `workdir`. One that holds no results was
    left behind when `workdir` was copied, and counts as unchanged."""
    places = []
    for place, before in inputs.items():
        directory = storage.at(place)
        now = fingerprint(directory if directory.is_absolute() else workdir / place)
        if now and now != before:
            places.append(str(workdir) if place == "." else place)
    return places
