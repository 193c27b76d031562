"""Reads trees for the page: all of them in numbers, and all that fit in full, in compressed chunks.

A text stands in the page as it was sampled; the page shows it as text, never as markup.
"""

import base64
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.rollout import records
from malt_jax.workdir import shards

Row = dict[str, Any]

CHUNK = 50  # trees that are unpacked together
BUDGET = 8 << 20  # bytes of the page that the trees of one forest may take
CUTS = (math.inf, 4000, 1000, 250)  # characters of a text, tried until all trees fit
KINDS = {
    "rescued": "a wrong first answer leads to a right last one",
    "broken": "a right first answer leads to a wrong last one",
    "disagreement": "the last answers differ",
    "unsolved": "no last answer is right",
}
_LIGHT = ("question_id", "node", "parent", "answer", "status")
_FACTS = (
    *("role", "completion", "prompt_tokens", "completion_tokens", "logprob", "finish_reason"),
    *("answer", "status"),
)
_PLACE = ("question_id", "node", "parent", "prompt", "question", "reference", "score")
_WORTH = ("reward", "value", "label")


@dataclass(frozen=True)
class Forest:
    """All trees in numbers, and those that fit in full.

    `kinds` counts, over all trees, the members of each of `KINDS`. `entries` say of every tree that
    is there its id, its value (None where it has none) and its kinds; the trees themselves are JSON
    objects with nested nodes, `CHUNK` of them a list in the entries' order, in `chunks` as base64
    of gzip. `cut` is the most characters of a text, or infinite. `prompts` holds each role's prompt
    on the first question.
    """

    total: int
    nodes: int
    kinds: Mapping[str, int]
    prompts: Mapping[str, str]
    entries: tuple[tuple[str, float | None, list[str]], ...]
    chunks: tuple[str, ...]
    cut: float

    @property
    def left_out(self) -> int:
        """How many trees did not fit."""
        return self.total - len(self.entries)


def load_forest(
    folder: Path, settings: CreditSettings, seed: int, budget: int = BUDGET
) -> Forest | None:
    """Reads the shards of `folder`, or returns None if there is none. Nodes have the worth that
    `credit.assign` gives them by `settings` and `seed`. Of trees that take more than `budget` bytes
    the longer texts are cut, and if that is not enough an even spread of the trees is taken.

    Raises:
      ValueError: a shard cannot be read or lacks a column, or a node lacks its parent.
    """
    valued = credit.columns(settings)
    cuts = credit.cuts_of(
        (records.read(shard, valued) for shard in shards.paths(folder)), settings, seed
    )
    kinds: dict[str, list[str]] = {}
    home: dict[str, Path] = {}
    nodes = 0
    for shard in shards.paths(folder):
        for question_id, rows in _by_question(records.read(shard, _LIGHT)).items():
            kinds[question_id] = kinds_of(rows)
            home[question_id] = shard
            nodes += len(rows)
    if not kinds:
        return None

    def trees(chosen: Sequence[str]) -> Iterator[dict[str, Any]]:
        for shard in dict.fromkeys(home[question_id] for question_id in chosen):
            stored = records.read(shard, (*_FACTS, *_PLACE))
            groups = _by_question(credit.assign(stored, settings, seed, cuts=cuts))
            for question_id in chosen:
                if home[question_id] == shard:
                    yield _tree(question_id, groups[question_id], kinds[question_id])

    first = home[next(iter(kinds))]
    tried = list(trees(spread([name for name in kinds if home[name] == first], CHUNK)))
    cut, fitting = _fitting(tried, len(kinds), budget)
    chosen = spread(list(kinds), fitting)
    entries, chunks, waiting = [], [], []
    for tree in trees(chosen):
        entries.append((tree["id"], value_of(tree), tree["kinds"]))
        waiting.append(shortened(tree, cut))
        if len(waiting) == CHUNK or len(entries) == len(chosen):
            chunks.append(pack(waiting))
            waiting = []
    return Forest(
        total=len(kinds),
        nodes=nodes,
        kinds={kind: sum(kind in of_tree for of_tree in kinds.values()) for kind in KINDS},
        prompts=_prompts(tried[0]),
        entries=tuple(entries),
        chunks=tuple(chunks),
        cut=cut,
    )


def pack(trees: Sequence[Mapping[str, Any]]) -> str:
    """A chunk: base64 of gzip of JSON, without NaN, the same bytes for the same trees."""
    text = json.dumps(_finite(trees), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def unpack(chunk: str) -> list[dict[str, Any]]:
    """The trees of a chunk."""
    trees: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(chunk)))
    return trees


def _fitting(tried: Sequence[dict[str, Any]], total: int, budget: int) -> tuple[float, int]:
    """The longest of `CUTS` under which `total` trees like those tried fit into the budget, and how
    many fit under it: under the shortest, as many as there is room for."""
    for cut in CUTS:
        size = len(pack([shortened(tree, cut) for tree in tried])) / len(tried)
        if size * total <= budget:
            return cut, total
    return cut, max(1, int(budget / size))


def shortened(tree: Mapping[str, Any], cut: float) -> dict[str, Any]:
    """A tree whose texts have at most about `cut` characters, with a note where the middle of one
    was left out."""

    def short(text: str) -> str:
        if len(text) <= cut:
            return text
        half = int(cut) // 2
        return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters …]\n{text[-half:]}"

    def node(given: Mapping[str, Any]) -> dict[str, Any]:
        children = [node(child) for child in given["children"]]
        return {**given, "completion": short(given["completion"]), "children": children}

    nodes, prompts = [node(root) for root in tree["nodes"]], [*map(short, tree["prompts"])]
    return {**tree, "prompts": prompts, "nodes": nodes}


def value_of(tree: Mapping[str, Any]) -> float | None:
    """The mean value of a tree's first nodes, None where none has one."""
    values = [node["value"] for node in tree["nodes"]]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _finite(value: Any) -> Any:
    """`value` with None for what JSON cannot say: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def spread(items: Sequence[str], limit: int) -> list[str]:
    """At most `limit` of `items`, evenly spread, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """Which of `KINDS` a tree is, from its rows' node, parent, answer and status."""
    nodes, inner = {row["node"]: row for row in rows}, {row["parent"] for row in rows}

    def first(row: Row) -> Row:
        return row if row["parent"] < 0 else first(nodes[row["parent"]])

    leaves = [row for row in rows if row["node"] not in inner]
    pairs = {(first(leaf)["status"] == "correct", leaf["status"] == "correct") for leaf in leaves}
    holds = {
        "rescued": (False, True) in pairs,
        "broken": (True, False) in pairs,
        "disagreement": len({leaf["answer"] for leaf in leaves}) > 1,
        "unsolved": not any(right for _, right in pairs),
    }
    return [kind for kind in KINDS if holds[kind]]


def _by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["question_id"], []).append(row)
    return groups


def _tree(question_id: str, rows: list[Row], kinds: list[str]) -> dict[str, Any]:
    """Nested nodes. Siblings share a prompt: it stands once, and a node holds its index."""
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    index = {prompt: i for i, prompt in enumerate(prompts)}
    nodes: dict[int, dict[str, Any]] = {-1: {"children": []}}
    for row in sorted(rows, key=lambda row: row["node"]):
        node = {key: row[key] for key in (*_FACTS, *_WORTH)}
        node |= {"prompt": index[row["prompt"]], "children": []}
        nodes[row["node"]] = node
        nodes[row["parent"]]["children"].append(node)
    return {
        "id": question_id,
        "question": rows[0]["question"],
        "reference": rows[0]["reference"],
        "kinds": kinds,
        "prompts": prompts,
        "nodes": nodes[-1]["children"],
    }


def _prompts(tree: Mapping[str, Any]) -> dict[str, str]:
    prompts = {}
    nodes = tree["nodes"]
    while nodes:
        prompts[nodes[0]["role"]] = tree["prompts"][nodes[0]["prompt"]]
        nodes = nodes[0]["children"]
    return prompts
