"""Trees of another run: the same samples, with fewer branches or a shorter chain where wanted.

A node's random numbers follow from its path, so the first m children of every parent are the tree
that branching m would have grown; and a chain cut after the generator is a tree of one level, whose
leaves are the generator's own answers. What would have needed other samples is refused.
"""

import json
import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax.config.settings import Settings
from malt_jax.models import identity
from malt_jax.rollout import records
from malt_jax.rollout.records import Row
from malt_jax.rollout.strategies.full_tree import nodes_per_question
from malt_jax.workdir import run_record, shards, storage
from malt_jax.workdir.storage import read_json

_DATA = ("task", "train", "eval", "exclude", "train_questions", "skip_questions", "max_chars")
# Settings that records of earlier versions lack, with the values that those ran with.
_ADDED = {
    "data.development_questions": 0,
    "data.seed": -1,
    "rounds.behaviour": "",
    "rounds.drawn_at": 0.0,
}
_SHAPES_SAMPLES = (
    *("seed", "model.path", "model.dtype", "sample.temperature", "sample.top_k", "sample.top_p"),
    *(f"data.{key}" for key in _DATA),
    *_ADDED,
)


def run(
    workdir: Path, settings: Settings, config: Mapping[str, Any], base: Mapping[str, Any]
) -> None:
    """Fills `workdir/trees` from those in `config.trees`, shard by shard.

    `config` is the resolved config of this run and `base` its model's `identity`. Raises ValueError
    naming every setting whose other value there would have drawn other samples (the same content
    at another path is none), what of the base differs, and if trees are missing.
    """
    source = storage.at(settings.trees)
    _check(source, settings, config, base)
    paths = shards.paths(source / "trees")
    for path in paths:
        target = workdir / "trees" / path.name
        if not target.exists():
            shards.write(target, _cut(records.read(path), settings, path), records.SCHEMA)
    logging.info("trees: %d shards of %s", len(paths), source)


def _check(
    source: Path, settings: Settings, config: Mapping[str, Any], base: Mapping[str, Any]
) -> None:
    record, data = source / "config.json", source / "data.json"
    if not record.exists() or not data.exists():
        raise ValueError(f"config.trees: {source} holds no run; run its --stage=collect first")
    earlier = read_json(record)
    old: dict[str, Any] = _ADDED | run_record.flat(earlier["config"])
    new = run_record.flat(json.loads(json.dumps(config)))
    keys = list(_SHAPES_SAMPLES)
    for name in settings.chain:
        keys += [f"roles.{name}.prompt", f"roles.{name}.max_new_tokens"]
    hashes = {name: value for name, value in base.items() if name.endswith("_hash")}
    other = [
        run_record.difference(key, old, new)
        for key in keys
        if old.get(key) != new.get(key)
        and not run_record.same_input(key, new.get(key), earlier, lambda: hashes)
    ]
    if difference := identity.differences(earlier, base):
        other.append(f"  the {difference}")
    chain = tuple(earlier["config"]["chain"])
    if settings.chain != chain[: len(settings.chain)]:
        other.append(f"  config.chain: {chain} there, {settings.chain} now, not its beginning")
    for name in settings.chain:
        most = old.get(f"roles.{name}.branching")
        if most is not None and settings.roles[name].branching > most:
            other.append(f"  config.roles.{name}.branching: only {most} there")
    if other:
        raise ValueError(
            f"config.trees: {source} was drawn with other settings:\n"
            + "\n".join(other)
            + "\ngive these values, or leave config.trees empty and collect"
        )
    done, wanted = len(shards.finished(source / "trees")), read_json(data)["train"]["kept"]
    if done < wanted:
        raise ValueError(
            f"config.trees: {source} holds {done} of {wanted} trees; run its --stage=collect first"
        )


def _cut(rows: Sequence[Row], settings: Settings, path: Path) -> list[Row]:
    """The wanted part of a shard's trees, in their order, its nodes numbered anew."""
    branching = settings.branching
    trees: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        steps = row["path"]
        if len(steps) <= len(branching) and all(map(operator.lt, steps, branching)):
            trees[row["question_id"]].append(row)
    nodes = nodes_per_question(branching)
    cut = []
    for question, tree in trees.items():
        tree.sort(key=lambda row: (len(row["path"]), row["path"]))
        places = {tuple(row["path"]): place for place, row in enumerate(tree)}
        if len(places) != nodes:
            raise ValueError(f"{path}: the tree of {question} is not whole; collect it anew")
        if not all(row["status"] for row in tree if len(row["path"]) == len(branching)):
            role = settings.chain[-1]
            raise ValueError(
                f"config.chain: ends with {role!r}, whose samples in {path.parent} gave no answers "
                "to grade; end it with another role, or leave config.trees empty and collect"
            )
        for row in tree:
            steps = tuple(row["path"])
            cut.append(row | {"node": places[steps], "parent": places.get(steps[:-1], -1)})
    return cut
