"""A sample as a row on disk: what was asked and drawn, by whom, and how it was graded.

A row holds facts alone. What it is worth (reward, value, label) follows from the grades and is
derived by `credit` where it is used.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Node, Tree
from malt_jax.types import Grade
from malt_jax.workdir import shards

Row = dict[str, Any]

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("role", pa.string()),
        ("node", pa.int32()),  # its place in its question's tree: by depth, then by path
        ("parent", pa.int32()),  # that of the node it followed from; -1 at a root
        ("path", pa.list_(pa.int32())),  # what its random key follows from
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("logprob", pa.float32()),  # of the whole completion, in nats under the model itself
        ("logprobs", pa.list_(pa.float32())),  # of each of its tokens
        ("behaviour_logprobs", pa.list_(pa.float32())),  # the same under what was sampled from
        ("finish_reason", pa.string()),  # stop, length
        ("policy", pa.string()),  # `team.policy`
        ("round", pa.int32()),
        ("answer", pa.string()),
        ("status", pa.string()),  # of `types.Status`; empty where no answer was asked for
        ("score", pa.float32()),  # in [0, 1]; null where there is no verdict
        ("via", pa.string()),  # the rule that read the answer
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("completion_token_ids", pa.list_(pa.int32())),
    ]
)
_UNGRADED = {"answer": "", "status": "", "score": None, "via": ""}


def rows(team: Team, tree: Tree, grades: Mapping[Node, Grade]) -> list[Row]:
    """The rows of a tree's nodes, in their order; a node without a grade was not to answer."""
    return [
        {
            "question_id": tree.question.id,
            "question": tree.question.text,
            "reference": tree.question.answer,
            "role": node.role,
            "node": place,
            "parent": parent,
            "path": list(node.path),
            "prompt": team.tokenizer.decode(node.prompt, control=True),
            "completion": node.text,
            "prompt_tokens": len(node.prompt),
            "completion_tokens": len(node.completion.tokens),
            "logprob": float(node.completion.logps.sum()),
            "logprobs": node.completion.logps.tolist(),
            "behaviour_logprobs": node.completion.behaviour.tolist(),
            "finish_reason": "stop" if node.completion.stopped else "length",
            "policy": team.policies[node.adapter],
            "round": team.round,
            **(_graded(grades[node]) if node in grades else _UNGRADED),
            "prompt_token_ids": node.prompt,
            "completion_token_ids": node.completion.tokens,
        }
        for place, (node, parent) in enumerate(zip(tree.nodes, tree.parents, strict=True))
    ]


def _graded(grade: Grade) -> Row:
    return {
        "answer": grade.answer,
        "status": grade.status,
        "score": None if math.isnan(grade.score) else grade.score,
        "via": grade.via,
    }


def _score(status: str) -> float | None:
    """What a verdict is worth; None where there is none."""
    return None if status in ("", "unknown") else float(status == "correct")


def read(path: Path, columns: Sequence[str] = tuple(SCHEMA.names), arrays: str = "") -> list[Row]:
    """A shard's rows with these columns, in their order. What versions before format 2 did not
    write is derived (`node`, `parent`, `score`) or empty. `arrays` is as in `shards.read_one`.

    Raises ValueError naming the shard if it cannot be read, lacks a column that nothing can be
    derived from, or holds a part of a tree.
    """
    wanted = dict.fromkeys(columns)
    if wanted.keys() & {"node", "parent"}:
        wanted |= dict.fromkeys(("question_id", "node", "parent", "path"))
    if "score" in wanted:
        wanted |= {"status": None}
    stored = shards.read_one(path, list(wanted), _SINCE_FORMAT_2, arrays)
    return _completed(stored, wanted.keys(), path) if stored else []


_SINCE_FORMAT_2 = {
    **{"node": None, "parent": None, "logprobs": None, "behaviour_logprobs": None},
    **{"policy": "", "round": 0, "score": None, "via": ""},
}


def _completed(stored: Sequence[Row], wanted: Iterable[str], path: Path) -> list[Row]:
    added = {name: value for name, value in _SINCE_FORMAT_2.items() if name in wanted}
    completed = [{**added, **row} for row in stored]
    if "score" in added and "score" not in stored[0]:
        for row in completed:
            row["score"] = _score(row["status"])
    if "node" in added and completed[0]["node"] is None:
        for row, (node, parent) in zip(completed, _places(completed, path), strict=True):
            row |= {"node": node, "parent": parent}
    return completed


def _places(stored: Sequence[Row], path: Path) -> Iterator[tuple[int, int]]:
    """Each row's `node` and `parent` from its path, which in trees of full branching says both."""
    trees: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for row in stored:
        trees[row["question_id"]].append(tuple(row["path"]))
    places = {
        (question, steps): place
        for question, paths in trees.items()
        for place, steps in enumerate(sorted(paths, key=lambda steps: (len(steps), steps)))
    }
    for row in stored:
        question, steps = row["question_id"], tuple(row["path"])
        parent = places.get((question, steps[:-1]), -1)
        if parent < 0 and len(steps) > 1:
            raise ValueError(
                f"{path}: question {question!r}: node {list(steps)} has no parent; delete it, "
                "--stage=collect"
            )
        yield places[question, steps], parent
