"""From labelled trees to training data: positives for SFT, same-parent pairs for DPO (MALT,
section 4.3), and every node with its label for KTO (arXiv 2402.01306).

The files load in TRL unchanged (prompt/completion, preference and unpaired preference form).
Training reads the token id columns beside the texts, so that what is trained on is what was
sampled, to the token.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from malt_jax import credit
from malt_jax.config.settings import CreditSettings, Settings
from malt_jax.rollout import records
from malt_jax.workdir import shards, storage

_IDS = pa.list_(pa.int32())
SFT_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("value", pa.float32()),
        ("question_id", pa.string()),
        ("prompt_token_ids", _IDS),
        ("completion_token_ids", _IDS),
    ]
)
DPO_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("values", pa.list_(pa.float32())),  # chosen, rejected
        ("question_id", pa.string()),
        ("prompt_token_ids", _IDS),
        ("chosen_token_ids", _IDS),
        ("rejected_token_ids", _IDS),
    ]
)
KTO_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("label", pa.bool_()),
        ("value", pa.float32()),
        ("question_id", pa.string()),
        ("prompt_token_ids", _IDS),
        ("completion_token_ids", _IDS),
    ]
)
Row = dict[str, Any]
_NODE = (
    *("role", "question_id", "node", "parent", "prompt", "completion", "score"),
    *("prompt_token_ids", "completion_token_ids"),
)


@dataclass
class Harvest:
    """What one role's nodes gave."""

    sft: list[Row] = field(default_factory=list)
    dpo: list[Row] = field(default_factory=list)
    kto: list[Row] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    positives: int = 0
    parents: int = 0
    contrasts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def run(workdir: Path, settings: Settings) -> dict[str, Any]:
    """Writes `datasets/ROLE/{sft,dpo,kto}.parquet`, `datasets/yield.json` and
    `datasets/credit.json` (the settings that they follow from) from `trees/`; returns the yield. A
    shard of trees is in memory at a time.

    Raises ValueError if there are no trees.
    """
    paths = shards.paths(workdir / "trees")
    if not paths:
        raise ValueError(f"{workdir / 'trees'}: no shards; run --stage=collect first")
    directory = workdir / "datasets"
    found = {role: summary(Harvest()) for role in settings.chain}
    with ExitStack() as stack:
        files = {role: _Files(directory / role, stack) for role in settings.chain}
        for path in paths:
            harvests = {role: Harvest() for role in settings.chain}
            nodes = credit.assign(records.read(path, _NODE), settings.credit, settings.seed)
            for (role, *_), siblings in _families(nodes).items():
                gather(harvests[role], siblings, settings.credit)
            for role, harvest in harvests.items():
                files[role].add(harvest)
                found[role] = _added(found[role], summary(harvest))
    storage.write_json(directory / "yield.json", found)
    storage.write_json(directory / "credit.json", _made_under(settings))
    for role, counts in found.items():
        logging.info(
            "%s: %d of %d positive, %d rows for SFT, %d pairs for DPO, %d rows for KTO",
            role,
            counts["positives"],
            counts["nodes"],
            counts["sft_rows"],
            counts["pairs"],
            counts["kto_rows"],
        )
        if why := lacks(counts):
            logging.warning("%s: %s", role, why)
    return found


def check_fresh(workdir: Path, settings: Settings) -> None:
    """Raises ValueError if the data sets in `workdir` were made under other credit settings."""
    path = workdir / "datasets" / "credit.json"
    if path.exists() and storage.read_json(path) != _made_under(settings):
        raise ValueError(
            f"{path.parent}: made under other settings than config.credit; run --stage=datasets "
            "again, which takes seconds and no samples"
        )


def _made_under(settings: Settings) -> Row:
    return {"credit": asdict(settings.credit), "seed": settings.seed}


def lacks(counts: Row) -> str:
    """What is missing in a role's samples, by its counts of `summary`, for all kinds of data sets
    to have rows, and what to do about it in another work directory; empty if nothing is."""
    nodes, positives = counts["nodes"], counts["positives"]
    other = "harder questions or a higher config.sample.temperature"
    if not nodes:
        return "no sample could be graded; look at the reference answers"
    if not positives and not sum(counts["value_histogram"]["counts"][1:]):
        return (
            f"none of {nodes} samples led to a right answer; take easier questions or a better "
            "base, raise config.roles.ROLE.max_new_tokens, or begin with --stage=solutions"
        )
    if not positives:
        return f"none of {nodes} samples is positive; lower config.credit.threshold"
    if not counts["sft_rows"]:
        dropped = ", ".join(f"{n} {reason}" for reason, n in counts["dropped"].items())
        return f"none of {positives} positive samples can be used ({dropped}); take another base"
    if positives == nodes:
        return f"all {nodes} samples are positive, so that none is preferred; take {other}"
    if nodes == counts["parents"]:
        return (
            "every sample is its parent's only one, so that none is preferred; raise "
            "config.roles.ROLE.branching"
        )
    if not counts["pairs"]:
        return f"no parent has different children, one positive and one not; take {other}"
    return ""


class _Files:
    """A role's data sets under way; they are there once `stack` is closed."""

    def __init__(self, directory: Path, stack: ExitStack):
        self.sft, self.dpo, self.kto = (
            stack.enter_context(shards.writing(directory / f"{name}.parquet", schema))
            for name, schema in (("sft", SFT_SCHEMA), ("dpo", DPO_SCHEMA), ("kto", KTO_SCHEMA))
        )
        self.turns: list[Any] = []  # for KTO: a file of every question's first row, second, ...
        self.unsorted = Path(stack.enter_context(TemporaryDirectory()))
        stack.callback(self._in_turn)
        self.open = stack.enter_context(ExitStack())

    def add(self, harvest: Harvest) -> None:
        self.sft(harvest.sft)
        self.dpo(harvest.dpo)
        for turn, rows in enumerate(_by_turn(harvest.kto)):
            if turn == len(self.turns):
                path = self.unsorted / f"shard-{turn:05d}.parquet"
                self.turns.append(self.open.enter_context(shards.writing(path, KTO_SCHEMA)))
            self.turns[turn](rows)

    def _in_turn(self) -> None:
        """A row of every question in turn, as long as there are any. KTO measures the distance to
        the reference on completions of other prompts; TRL takes the next row's, and a sibling's is
        no such completion."""
        for path in shards.paths(self.unsorted):
            for batch in pq.ParquetFile(path).iter_batches(1024):
                self.kto(batch.to_pylist())


def _families(rows: Sequence[Row]) -> dict[tuple[str, str, int, str], list[Row]]:
    """Siblings by (role, question, parent, prompt), in the order of the rows. What a strategy asks
    of a question itself, in other words at another time, has no parent to be told apart by."""
    families: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        key = (row["role"], row["question_id"], row["parent"], row["prompt"])
        families.setdefault(key, []).append(row)
    return families


def gather(harvest: Harvest, siblings: Sequence[Row], settings: CreditSettings) -> None:
    """Adds one parent's children to its role's harvest. A node without a value (none of its leaves
    could be graded) is neither positive nor negative."""
    harvest.dropped["not graded"] += sum(row["value"] is None for row in siblings)
    siblings = [row for row in siblings if row["value"] is not None]
    harvest.parents += 1
    harvest.values += [row["value"] for row in siblings]
    harvest.positives += sum(row["label"] for row in siblings)
    distinct = _distinct(harvest, siblings)
    positives = [row for row in distinct if row["label"]]
    negatives = [row for row in distinct if not row["label"]]
    harvest.contrasts += bool(positives and negatives)
    kept = positives[: settings.max_positives_per_parent]
    harvest.dropped["positives over the cap"] += len(positives) - len(kept)
    harvest.sft += [_columns(row, SFT_SCHEMA) for row in kept]
    harvest.kto += [_columns(row, KTO_SCHEMA) for row in distinct]
    pairs = [(good, bad) for good in positives for bad in negatives]
    # The widest gap first; ties keep the order of the samples. Under a cap, spread over the
    # chosen ones.
    pairs.sort(key=lambda pair: pair[1]["value"] - pair[0]["value"])
    chosen = _spread(pairs, settings.max_pairs_per_parent)
    harvest.dropped["pairs over the cap"] += len(pairs) - len(chosen)
    harvest.dpo += [_pair(good, bad) for good, bad in chosen]


def _distinct(harvest: Harvest, siblings: Sequence[Row]) -> list[Row]:
    """Siblings without empty and repeated texts. A text with both labels (the refiners below it
    fell differently) says nothing about itself and is dropped whole."""
    labels: dict[str, set[bool]] = {}
    for row in siblings:
        labels.setdefault(row["completion"], set()).add(row["label"])
    seen: set[str] = set()
    kept = []
    for row in siblings:
        text = row["completion"]
        if not text.strip():
            harvest.dropped["empty"] += 1
        elif len(labels[text]) > 1:
            harvest.dropped["same text, both labels"] += 1
        elif text in seen:
            harvest.dropped["repeated text"] += 1
        else:
            seen.add(text)
            kept.append(row)
    return kept


def _spread(pairs: list[tuple[Row, Row]], cap: int) -> list[tuple[Row, Row]]:
    """The first `cap` pairs, taking a chosen text a second time only after every other had its
    turn."""
    uses: Counter[int] = Counter()
    ranked = []
    for order, pair in enumerate(pairs):
        ranked.append((uses[id(pair[0])], order, pair))
        uses[id(pair[0])] += 1
    return [pair for _, _, pair in sorted(ranked, key=lambda item: item[:2])[:cap]]


def _by_turn(rows: Sequence[Row]) -> list[list[Row]]:
    """Every question's first row, every question's second, ..."""
    turns: Counter[str] = Counter()
    found: list[list[Row]] = []
    for row in rows:
        turn = turns[row["question_id"]]
        turns[row["question_id"]] += 1
        if turn == len(found):
            found.append([])
        found[turn].append(row)
    return found


def _columns(row: Row, schema: pa.Schema) -> Row:
    return {name: row[name] for name in schema.names}


def _pair(good: Row, bad: Row) -> Row:
    return {
        "prompt": good["prompt"],
        "chosen": good["completion"],
        "rejected": bad["completion"],
        "values": [good["value"], bad["value"]],
        "question_id": good["question_id"],
        "prompt_token_ids": good["prompt_token_ids"],
        "chosen_token_ids": good["completion_token_ids"],
        "rejected_token_ids": bad["completion_token_ids"],
    }


def summary(harvest: Harvest) -> Row:
    """What `datasets/yield.json` says of a role."""
    counts, edges = np.histogram(harvest.values, bins=10, range=(0.0, 1.0))
    return {
        "nodes": len(harvest.values),
        "positives": harvest.positives,
        "sft_rows": len(harvest.sft),
        "parents": harvest.parents,
        "parents_with_contrast": harvest.contrasts,
        "pairs": len(harvest.dpo),
        "kto_rows": len(harvest.kto),
        "value_histogram": {
            "edges": [round(e, 6) for e in edges.tolist()],
            "counts": counts.tolist(),
        },
        "dropped": {reason: count for reason, count in harvest.dropped.items() if count},
    }


def _added(a: Row, b: Row) -> Row:
    """Two summaries as one."""
    both = {name: a[name] + b[name] for name, count in a.items() if isinstance(count, int)}
    ours, theirs = (one["value_histogram"] for one in (a, b))
    counts = [x + y for x, y in zip(ours["counts"], theirs["counts"], strict=True)]
    return {name: both.get(name) for name in a} | {
        "value_histogram": {"edges": ours["edges"], "counts": counts},
        "dropped": dict(Counter(a["dropped"]) + Counter(b["dropped"])),
    }
