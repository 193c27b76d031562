"""Trees of another run, put to other uses: the same samples with other rewards, another threshold,
fewer branches or a shorter chain.

A node's random numbers follow from its path, so the first m children of every parent are the tree
that branching m would have grown; and a chain cut after the generator is a tree of one level, whose
rewards are the generator's own. What would have needed other samples is refused.
"""

import itertools
import json
import operator
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax.config.settings import Settings
from malt_jax.rollout import tree
from malt_jax.workdir import run_record, shards, storage
from malt_jax.workdir.storage import read_json

_DATA = ("task", "train", "eval", "exclude", "train_questions", "skip_questions", "max_chars")
_SHAPES_SAMPLES = (
    *("seed", "model.path", "model.dtype", "sample.temperature", "sample.top_k", "sample.top_p"),
    *(f"data.{key}" for key in _DATA),
)


def run(workdir: Path, settings: Settings, config: Mapping[str, Any], base_hash: str) -> None:
    """Fills `workdir/trees` from those in `config.trees`, shard by shard.

    `config` is the resolved config of this run and `base_hash` its model's. Raises ValueError
    naming every setting whose other value there would have drawn other samples, and if trees are
    missing.
    """
    source = storage.at(settings.trees)
    _check(source, settings, config, base_hash)
    paths = shards.paths(source / "trees")
    for path in paths:
        target = workdir / "trees" / path.name
        if not target.exists():
            shards.write(target, _cut(shards.read_one(path), settings, path), shards.SCHEMA)
    logging.info("trees: %d shards of %s, valued anew", len(paths), source)


def _check(source: Path, settings: Settings, config: Mapping[str, Any], base_hash: str) -> None:
    record, data = source / "config.json", source / "data.json"
    if not record.exists() or not data.exists():
        raise ValueError(f"config.trees: {source} holds no run; run its --stage=collect first")
    there = read_json(record)
    old, new = run_record.flat(there["config"]), run_record.flat(json.loads(json.dumps(config)))
    keys = list(_SHAPES_SAMPLES)
    for name in settings.chain:
        keys += [f"roles.{name}.prompt", f"roles.{name}.max_new_tokens"]
    other = [
        f"  config.{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in keys
        if old.get(key) != new.get(key)
    ]
    if there["base_hash"] != base_hash:
        other.append(f"  the base model: {there['base_hash'][:19]} there, {base_hash[:19]} now")
    chain = tuple(there["config"]["chain"])
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


def _cut(rows: list[tree.Row], settings: Settings, path: Path) -> list[tree.Row]:
    """The wanted part of a shard's trees, in their order, with rewards, values and labels of its
    own."""
    branching = settings.branching
    trees: dict[str, list[list[tree.Row]]] = defaultdict(lambda: [[] for _ in branching])
    for row in rows:
        steps = row["path"]
        if len(steps) <= len(branching) and all(map(operator.lt, steps, branching)):
            trees[row["question_id"]][len(steps) - 1].append(row)
    sizes = list(itertools.accumulate(branching, operator.mul))
    for question, levels in trees.items():
        for level in levels:
            level.sort(key=lambda row: row["path"])
        if [len(level) for level in levels] != sizes:
            raise ValueError(f"{path}: the tree of {question} is not whole; collect it anew")
        if not all(row["status"] for row in levels[-1]):
            role = settings.chain[-1]
            raise ValueError(
                f"config.chain: ends with {role!r}, whose samples in {path.parent} gave no answers "
                "to grade; end it with another role, or leave config.trees empty and collect"
            )
    together = [
        [n for level in depth for n in level] for depth in zip(*trees.values(), strict=True)
    ]
    return tree.value(together, branching, settings.credit, settings.seed)
