"""Reads the trees: the whole of them for the counts, an even spread of them for the page.

A text stands in the page's JSON as it was sampled; the page shows it as text, never as markup.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from malt_jax.workdir import shards

Row = dict[str, Any]

LIMIT = 60
KINDS = {
    "rescued": "a wrong first answer leads to a right last one",
    "broken": "a right first answer leads to a wrong last one",
    "disagreement": "the last answers differ",
    "unsolved": "no last answer is right",
}
_LIGHT = ["question_id", "path", "answer", "status"]
_NODE = [
    "role", "completion", "prompt_tokens", "completion_tokens", "logprob", "finish_reason",
    "answer", "status", "reward", "value", "label",
]  # fmt: skip


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


def load_forest(folder: Path) -> Forest | None:
    """Reads the shards of `folder`, or returns None if there is none.

    Raises:
      ValueError: a shard cannot be read or lacks a column, or a node lacks its parent.
    """
    paths = shards.paths(folder)
    kinds: dict[str, list[str]] = {}
    home: dict[str, Path] = {}
    nodes = 0
    for shard in paths:
        for question_id, rows in _by_question(_read(shard, _LIGHT)).items():
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
            columns = [*_NODE, "question_id", "path", "prompt", "question", "reference"]
            groups = _by_question(_read(shard, columns))
            trees += [_tree(name, groups[name], kinds[name], shard) for name in here]
    return Forest(
        total=len(kinds),
        nodes=nodes,
        kinds={kind: sum(kind in found for found in kinds.values()) for kind in KINDS},
        prompts=_prompts(trees[0]),
        trees=tuple(trees),
    )


def spread(items: Sequence[str], limit: int) -> list[str]:
    """At most `limit` of `items`, evenly spread, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def kinds_of(rows: Iterable[Row]) -> list[str]:
    """Which of `KINDS` a tree is, from its rows' path, answer and status."""
    rows = list(rows)
    depth = max(len(row["path"]) for row in rows)
    leaves = [row for row in rows if len(row["path"]) == depth]
    first = {row["path"][0]: row["status"] == "correct" for row in rows if len(row["path"]) == 1}
    pairs = {(first[leaf["path"][0]], leaf["status"] == "correct") for leaf in leaves}
    found = {
        "rescued": (False, True) in pairs,
        "broken": (True, False) in pairs,
        "disagreement": len({leaf["answer"] for leaf in leaves}) > 1,
        "unsolved": not any(right for _, right in pairs),
    }
    return [kind for kind in KINDS if found[kind]]


def _read(shard: Path, columns: list[str]) -> list[Row]:
    rows = shards.read_one(shard, columns)
    if rows and (lacking := set(columns) - rows[0].keys()):
        raise ValueError(
            f"{shard}: lacks the columns {sorted(lacking)}; delete it, --stage=collect"
        )
    return rows


def _by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["question_id"], []).append(row)
    return groups


def _tree(question_id: str, rows: list[Row], kinds: list[str], shard: Path) -> dict[str, Any]:
    """Nested nodes. Siblings share a prompt: it stands once, and a node holds its index."""
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    index = {prompt: i for i, prompt in enumerate(prompts)}
    nodes: dict[tuple[int, ...], dict[str, Any]] = {(): {"children": []}}
    for row in sorted(rows, key=lambda row: (len(row["path"]), row["path"])):
        path = tuple(row["path"])
        if path[:-1] not in nodes:
            raise ValueError(f"{shard}: question {question_id!r}: node {list(path)} has no parent")
        node = {key: row[key] for key in _NODE}
        node |= {"prompt": index[row["prompt"]], "children": []}
        nodes[path] = node
        nodes[path[:-1]]["children"].append(node)
    return {
        "id": question_id,
        "question": rows[0]["question"],
        "reference": rows[0]["reference"],
        "kinds": kinds,
        "prompts": prompts,
        "nodes": nodes[()]["children"],
    }


def _prompts(tree: Mapping[str, Any]) -> dict[str, str]:
    prompts = {}
    nodes = tree["nodes"]
    while nodes:
        prompts[nodes[0]["role"]] = tree["prompts"][nodes[0]["prompt"]]
        nodes = nodes[0]["children"]
    return prompts
