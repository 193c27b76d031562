"""From labelled trees to training data: the rows of every phase, role by role (MALT, arXiv
2412.01928, section 4.3).

The files load in TRL unchanged (prompt/completion, preference and unpaired preference form).
Training reads the token id columns beside the texts, so that what is trained on is what was
sampled, to the token.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.config.settings import Settings
from malt_jax.learn.phases import PHASES
from malt_jax.learn.phases.phase import Family, Row
from malt_jax.rollout import records
from malt_jax.workdir import rounds, shards, storage

_NODE = (
    *("role", "question_id", "node", "parent", "prompt", "completion", "score"),
    *("prompt_token_ids", "completion_token_ids"),
)
_WEIGHT = pa.field("weight", pa.float32())


@dataclass
class Harvest:
    """What one role's nodes gave: rows by phase, and counts of what they were made from."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in PHASES})
    values: list[float] = field(default_factory=list)
    positives: int = 0
    parents: int = 0
    contrasts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def run(workdir: Path, settings: Settings) -> dict[str, Any]:
    """Writes `datasets/ROLE/PHASE.parquet` of every phase, `datasets/yield.json` and
    `datasets/credit.json` (the settings that they follow from) from `trees/`, and from those of the
    rounds before it that `config.rounds.replay` names; returns the yield. A shard of trees is in
    memory at a time. Where those are to weigh less, each row has a `weight`.

    Raises ValueError if there are no trees, or in a round a tree twice.
    """
    folders = _folders(workdir, settings.rounds)
    weights = _weights(folders, settings.rounds)
    for folder in folders:
        if not shards.paths(folder):
            raise ValueError(f"{folder}: no shards; run --stage=collect first")
    paths = [path for folder in folders for path in shards.paths(folder)]
    directory = workdir / "datasets"
    columns = (*_NODE, *{name for phase in PHASES.values() for name in phase.reads})
    totals = {role: summary(Harvest()) for role in settings.chain}
    shard_of: dict[Path, dict[str, Path]] = {folder: {} for folder in folders}
    valued = credit.columns(settings.credit)
    cuts = credit.cuts_of(
        (records.read(path, valued) for path in paths), settings.credit, settings.seed
    )
    with ExitStack() as stack:
        more = [_WEIGHT] if weights else []
        writers = {role: _writers(directory / role, stack, more) for role in settings.chain}
        for path in paths:
            stored = records.read(path, columns, arrays="_token_ids")
            shards.distinct(shard_of[path.parent], path, stored)
            nodes = credit.assign(stored, settings.credit, settings.seed, cuts=cuts)
            for role, of_role in harvest(nodes, settings.chain, settings.credit).items():
                for phase, rows in of_role.rows.items():
                    writers[role][phase](_weighed(rows, weights.get(path.parent)))
                totals[role] = _added(totals[role], summary(of_role))
    storage.write_json(directory / "yield.json", totals)
    storage.write_json(directory / "credit.json", _made_under(settings))
    for role, counts in totals.items():
        made = ", ".join(f"{counts[phase.counted]} rows for {key}" for key, phase in PHASES.items())
        logging.info("%s: %d of %d positive, %s", role, counts["positives"], counts["nodes"], made)
        if why := lacks(counts):
            logging.warning("%s: %s", role, why)
    return totals


def _folders(workdir: Path, settings: RoundsSettings) -> list[Path]:
    """The directories of trees to learn from, those of the earliest round first."""
    number = settings.number
    earlier = range(max(1, number - settings.replay), number)
    return [*(rounds.beside(workdir, i) / "trees" for i in earlier), workdir / "trees"]


def _weights(folders: Sequence[Path], settings: RoundsSettings) -> dict[Path, float]:
    """What a row of each directory's trees weighs; empty where all weigh the same."""
    if settings.replay_weight == 1 or len(folders) == 1:
        return {}
    ages = range(len(folders) - 1, -1, -1)  # rounds ago
    return {folder: settings.replay_weight**age for folder, age in zip(folders, ages, strict=True)}


def _weighed(rows: list[Row], weight: float | None) -> list[Row]:
    return rows if weight is None else [row | {_WEIGHT.name: weight} for row in rows]


def harvest(
    nodes: Sequence[Row], roles: Sequence[str], credit: CreditSettings
) -> dict[str, Harvest]:
    """What each of `roles` has of the nodes of whole trees, which have a value and a label."""
    harvests, mixed = {role: Harvest() for role in roles}, _mixed(nodes)
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in nodes:
        if row["value"] is not None:
            alike[row["role"], row["question_id"]].append(row)
    for (role, question, _, prompt), siblings in _families(nodes).items():
        if role in harvests:
            texts, of_question = mixed[role, question, prompt], alike[role, question]
            gather(harvests[role], siblings, credit, texts, of_question)
    return harvests


def _mixed(nodes: Sequence[Row]) -> Mapping[tuple[str, str, str], set[str]]:
    """By (role, question, prompt), the completions that have both labels, be it under several
    parents, whose own texts are the same. They are one state of the game, sampled twice: that its
    value was estimated on both sides of the threshold says nothing about it."""
    labels: dict[tuple[str, str, str], dict[str, bool]] = defaultdict(dict)
    mixed: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in nodes:
        key, text = (row["role"], row["question_id"], row["prompt"]), row["completion"]
        if row["label"] is not None and labels[key].setdefault(text, row["label"]) != row["label"]:
            mixed[key].add(text)
    return mixed


def rows(workdir: Path, role: str, phase: str) -> int:
    """How many rows a role has for a phase. Raises ValueError if its data set is not there."""
    path = workdir / "datasets" / role / f"{phase}.parquet"
    if not path.exists():
        raise ValueError(f"{path}: not there; run --stage=datasets first")
    with path.open("rb") as file:
        return int(pq.read_metadata(file).num_rows)


def check_fresh(workdir: Path, settings: Settings) -> None:
    """Raises ValueError if the data sets in `workdir` were made under other credit settings."""
    path = workdir / "datasets" / "credit.json"
    if not path.exists():
        return
    stored = {"replay": 0, "replay_weight": 1.0} | storage.read_json(path)
    stored["credit"] = asdict(CreditSettings()) | stored["credit"]  # of an earlier version
    if json.dumps(stored, sort_keys=True) != json.dumps(_made_under(settings), sort_keys=True):
        raise ValueError(
            f"{path.parent}: made under other settings than config.credit, or with another "
            "config.rounds.replay or config.rounds.replay_weight; run --stage=datasets again, "
            "which takes seconds and no samples"
        )


def _made_under(settings: Settings) -> Row:
    over = settings.rounds
    return {
        "credit": asdict(settings.credit),
        "seed": settings.seed,
        "replay": over.replay,
        "replay_weight": over.replay_weight,
    }


def lacks(counts: Mapping[str, Any]) -> str:
    """What is missing in a role's samples, by its counts of `summary`, for all kinds of data sets
    to have rows, and what to do about it in another work directory; empty if nothing is."""
    nodes = counts["nodes"]
    if not nodes:
        return "no sample could be graded; look at the reference answers"
    if not counts["positives"] and not sum(counts["value_histogram"]["counts"][1:]):
        return (
            f"none of {nodes} samples led to a right answer; take easier questions or a better "
            "base, raise config.roles.ROLE.max_new_tokens, or begin with --stage=solutions"
        )
    return next(filter(None, (phase.lacks(counts) for phase in PHASES.values())), "")


def _writers(
    directory: Path, stack: ExitStack, more: Sequence[pa.Field]
) -> dict[str, Callable[[list[Row]], None]]:
    """By phase, what takes rows of a role's data set, with `more` columns; the files are there once
    `stack` is closed."""
    return {
        name: stack.enter_context(
            phase.writing(directory / f"{name}.parquet", pa.schema([*phase.schema, *more]))
        )
        for name, phase in PHASES.items()
    }


def _families(rows: Sequence[Row]) -> dict[tuple[str, str, int, str], list[Row]]:
    """Siblings by (role, question, parent, prompt), in the order of the rows. What a strategy asks
    of a question itself, in other words at another time, has no parent to be told apart by."""
    families: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        key = (row["role"], row["question_id"], row["parent"], row["prompt"])
        families.setdefault(key, []).append(row)
    return families


def gather(
    harvest: Harvest,
    siblings: Sequence[Row],
    credit: CreditSettings,
    mixed: Collection[str] = (),
    of_question: Sequence[Row] = (),
) -> None:
    """Adds one parent's children to its role's harvest; the texts in `mixed` have the other label
    under another parent, and `of_question` is as in `Family`. A node without a value (none of its
    leaves could be graded) is neither positive nor negative."""
    harvest.dropped["not graded"] += sum(row["value"] is None for row in siblings)
    siblings = [row for row in siblings if row["value"] is not None]
    harvest.parents += 1
    harvest.values += [row["value"] for row in siblings]
    harvest.positives += sum(row["label"] for row in siblings)
    family = Family(siblings, _distinct(harvest, siblings, mixed), of_question)
    harvest.contrasts += bool(family.positives and family.negatives)
    for name, phase in PHASES.items():
        rows, dropped = phase.rows(family, credit)
        harvest.rows[name] += rows
        harvest.dropped.update(dropped)


def _distinct(harvest: Harvest, siblings: Sequence[Row], mixed: Collection[str]) -> list[Row]:
    """Siblings without empty and repeated texts. A text with both labels (the refiners below it
    fell differently), here or as one of `mixed`, says nothing about itself and is dropped whole."""
    labels: dict[str, set[bool]] = {}
    for row in siblings:
        labels.setdefault(row["completion"], set()).add(row["label"])
    seen: set[str] = set()
    kept = []
    for row in siblings:
        text = row["completion"]
        if not text.strip():
            harvest.dropped["empty"] += 1
        elif len(labels[text]) > 1 or text in mixed:
            harvest.dropped["same text, both labels"] += 1
        elif text in seen:
            harvest.dropped["repeated text"] += 1
        else:
            seen.add(text)
            kept.append(row)
    return kept


def summary(harvest: Harvest) -> Row:
    """What `datasets/yield.json` says of a role."""
    counts, edges = np.histogram(harvest.values, bins=10, range=(0.0, 1.0))
    return {
        "nodes": len(harvest.values),
        "positives": harvest.positives,
        "parents": harvest.parents,
        "parents_with_contrast": harvest.contrasts,
        **{phase.counted: len(harvest.rows[name]) for name, phase in PHASES.items()},
        "value_histogram": {
            "edges": [round(e, 6) for e in edges.tolist()],
            "counts": counts.tolist(),
        },
        "dropped": {reason: count for reason, count in harvest.dropped.items() if count},
    }


def _added(a: Row, b: Row) -> Row:
    """Two summaries as one."""
    both = {name: a[name] + b[name] for name, count in a.items() if isinstance(count, int)}
    first, second = (summary["value_histogram"] for summary in (a, b))
    counts = [x + y for x, y in zip(first["counts"], second["counts"], strict=True)]
    return {name: both.get(name) for name in a} | {
        "value_histogram": {"edges": first["edges"], "counts": counts},
        "dropped": dict(Counter(a["dropped"]) + Counter(b["dropped"])),
    }
