"""Reads the trees: the whole of them for the counts, an even spread of them for the page.

A text stands in the page's JSON as it was sampled; the page shows it as text, never as markup.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from malt_jax import credit
from malt_jax.config.settings import CreditSettings
from malt_jax.rollout import records
from malt_jax.workdir import shards

Row = dict[str, Any]

LIMIT = 60
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
    """All trees in numbers and up to `LIMIT` of them in full.

    `kinds` counts, over all trees, the members of each of `KINDS`. `trees` are JSON objects with
    nested nodes; `prompts` holds each role's prompt on the first question.
    """

    total: int
    nodes: int
    kinds: Mapping[str, int]
    prompts: Mapping[str, str]
    trees: tuple[dict[str, Any], ...]


def load_forest(folder: Path, settings: CreditSettings, seed: int) -> Forest | None:
    """Reads the shards of `folder`, or returns None if there is none. Nodes have the worth that
    `credit.assign` gives them by `settings` and `seed`.

    Raises:
      ValueError: a shard cannot be read or lacks a column, or a node lacks its parent.
    """
    paths = shards.paths(folder)
    kinds: dict[str, list[str]] = {}
    home: dict[str, Path] = {}
    nodes = 0
    for shard in paths:
        for question_id, rows in _by_question(records.read(shard, _LIGHT)).items():
            kinds[question_id] = kinds_of(rows)
            home[question_id] = shard
            nodes += len(rows)
    if not kinds:
        return None
    chosen = spread(list(kinds), LIMIT)
    trees = []
    for shard in paths:
        here = [question_id for question_id in chosen if home[question_id] == shard]
        if here:
            stored = records.read(shard, (*_FACTS, *_PLACE))
            groups = _by_question(credit.assign(stored, settings, seed))
            trees += [_tree(name, groups[name], kinds[name]) for name in here]
    return Forest(
        total=len(kinds),
        nodes=nodes,
        kinds={kind: sum(kind in of_tree for of_tree in kinds.values()) for kind in KINDS},
        prompts=_prompts(trees[0]),
        trees=tuple(trees),
    )


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
