"""What the paper reports, read from `third_party/`."""

import json
from functools import cache
from typing import Any

from malt_jax.config.places import shipped

_FILE = shipped("third_party") / "malt_paper_results.json"


def accuracy(config: dict[str, Any], row: str) -> float | None:
    """The paper's accuracy, from 0 to 1, for a row of our tables on this task; None where it has
    none. Its model is `source`'s, whatever ours is."""
    task, found = config["data"]["task"], _results()
    if (entry := _main(config)) is None:
        return None
    ablations, percent = found["ablations"], None
    fewer = ablations["fewer_roles"]
    name = row.removesuffix("_mv")
    if row in entry["accuracy"]:
        percent = entry["accuracy"][row]
    elif row == "debate":
        percent = ablations["debate_3_agents_3_rounds"].get(task)
    elif row.endswith("_mv"):  # the paper's ablations are with the vote
        if name.startswith("untrained_"):
            role = name.removeprefix("untrained_")
            percent = ablations["untrained_role"].get(role, {}).get(task)
        elif name == "only_generator":
            percent = fewer["generator"].get(task)
        elif name == "generator_verifier":
            percent = fewer["generator_verifier"].get(task)
        elif name == "empty_critique":
            percent = fewer["generator_refiner_empty_critique"].get(task)
        elif name == "dpo_generator":
            percent = ablations["generator_training"].get(task, {}).get("sft_dpo")
        elif name.startswith("turns_"):
            turns = ablations["turns"].get(task, {})
            percent = turns.get(name.removeprefix("turns_"))
    return None if percent is None else percent / 100


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
    found = [entry for entry in _results()["main"] if entry["task"] == config["data"]["task"]]
    model = config["model"]["path"].lower()
    same = [entry for entry in found if entry["model"].split(" ")[0].lower() in model]
    return (same or found or [None])[0]


@cache
def _results() -> dict[str, Any]:
    if not _FILE.exists():
        return {"main": []}
    return dict(json.loads(_FILE.read_text(encoding="utf-8")))
