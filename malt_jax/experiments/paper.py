"""What the paper reports, read from `third_party/`."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from malt_jax.config.places import shipped

TASK = "TASK"
_FILE = shipped("third_party") / "malt_paper_results.json"


def accuracy(config: dict[str, Any], row: str, ablation: Sequence[str] = ()) -> float | None:
    """The paper's accuracy, from 0 to 1, for a row of our tables on this task; None where it has
    none. Its model is `source`'s, whatever ours is.

    The main table has rows of our names. `ablation` are the keys of one of the paper's ablations,
    `TASK` in the place of the task; all of these are with the vote.
    """
    if (entry := _main(config)) is None:
        return None
    percent = entry["accuracy"].get(row)
    if percent is None and ablation:
        percent = _results()["ablations"]
        for key in ablation:
            percent = percent.get(config["data"]["task"] if key == TASK else key, {})
    return percent / 100 if isinstance(percent, int | float) else None


def source(config: dict[str, Any]) -> dict[str, str] | None:
    """Where the numbers of `accuracy` come from, or None where there are none."""
    if (entry := _main(config)) is None:
        return None
    about = _results()["source"]
    return {
        "title": about["title"],
        "arxiv": about["arxiv"],
        "model": entry["model"],
        "protocol": _results()["protocol"],
    }


def _main(config: dict[str, Any]) -> dict[str, Any] | None:
    """The paper's entry for this task: of this model if there is one, else the first."""
    entries = [entry for entry in _results()["main"] if entry["task"] == config["data"]["task"]]
    model = config["model"]["path"].lower()
    same = [entry for entry in entries if entry["model"].split(" ")[0].lower() in model]
    return (same or entries or [None])[0]


@cache
def _results() -> dict[str, Any]:
    if not _FILE.exists():
        return {"main": []}
    return dict(json.loads(_FILE.read_text(encoding="utf-8")))
