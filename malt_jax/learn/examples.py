"""What a phase is fed: its rows as packed examples, with the reference policy's log-probabilities,
on two sides, one to train on and one held out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from malt_jax.config.settings import Settings
from malt_jax.learn import steps
from malt_jax.learn.packing import Batch, Examples, Plan, examples, take
from malt_jax.learn.phases.phase import Phase, StepData, ragged
from malt_jax.learn.scoring import Scoring
from malt_jax.models import Model
from malt_jax.models.lora import Adapter
from malt_jax.runtime import hosts
from malt_jax.runtime.mesh import fetch
from malt_jax.workdir import shards, storage


@dataclass(frozen=True)
class Data:
    """A side's examples and what a loss may need of each."""

    examples: Examples
    source: Path  # its file
    questions: np.ndarray  # str[N], their ids
    arrays: Mapping[str, np.ndarray]  # [N, ...] by name, as in `phases.phase.StepData`

    def __len__(self) -> int:
        return len(self.examples)

    def step(self, phase: Phase[Any], plan: Plan, i: int, pad_id: int) -> tuple[Batch, steps.Extra]:
        """The micro-batches of optimiser step `i` and the arrays its loss needs beside them."""
        batch = take(self.examples, plan, i, pad_id)
        data = StepData(plan.order[i], self.examples, self.arrays, batch)
        return batch, phase.extra(data)

    def part(self, chosen: np.ndarray) -> "Data":
        """The examples at the indices `chosen`."""
        old = self.examples
        parts = [old.tokens[old.starts[i] : old.starts[i + 1]] for i in chosen]
        starts = np.concatenate([[0], np.cumsum(old.sizes[chosen])]).astype(np.int64)
        tokens = np.concatenate(parts) if parts else old.tokens[:0]
        packed = Examples(tokens, starts, old.prompts[chosen], old.completions[chosen])
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        return Data(packed, self.source, self.questions[chosen], arrays)


def held_out(questions: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows, bool[N], are kept out of training: about `share` of the questions, by a hash of
    (seed, question id). So a question's rows are on one side, and on the same one in every phase
    and role. None are if they would be all."""
    names = np.unique(questions)
    hashes = [hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8] for name in names]
    chosen = names[[int.from_bytes(digest) < share * 2**64 for digest in hashes]]
    out = np.isin(questions, chosen)
    return out if not out.all() else np.zeros_like(out)


def load(
    path: Path,
    directory: Path,
    phase: Phase[Any],
    settings: Settings,
    model: Model,
    mesh: Mesh,
    reference: Adapter | None,
    beside: Sequence[Path] = (),
) -> tuple[Data, Data]:
    """The rows of a phase's data set, and of those `beside` it, of other roles: those to train on,
    and the held-out ones.

    Where the phase needs the log-probabilities of the policy `reference` (None: the base without an
    adapter), or of the base, they are computed once and kept in `directory`, as `reference.npz` or
    `base.npz`.
    Raises ValueError for a row that `packing.examples` or `phase.arrays` refuses.
    """
    chosen = settings.phases[phase.name]
    sets = {file: shards.read_one(file, arrays="_token_ids") for file in (path, *beside)}
    rows = [row for of_role in sets.values() for row in of_role]
    questions = np.array([row["question_id"] for row in rows])
    out = held_out(questions, chosen.held_out, settings.seed)
    packed = examples(
        [row["prompt_token_ids"] for row in rows],
        phase.completions(rows, out, model.config.context),
        model.config.context,
        [
            f"{file}: question {row['question_id']}"
            for file, of_role in sets.items()
            for row in of_role
        ],
    )
    of_roles = [phase.arrays(of_role, chosen) for of_role in sets.values() if of_role]
    arrays = {name: np.concatenate([given[name] for given in of_roles]) for name in of_roles[0]}
    if rows and "weight" in rows[0]:
        arrays["weight"] = np.array([row["weight"] for row in rows], np.float32)
    scoring = Scoring(packed, model, mesh, chosen.batch)
    if phase.needs_reference:
        digest = _digest(packed, fetch(reference))
        compute = partial(scoring.reference, reference)
        arrays["reference"] = _kept(directory / "reference.npz", digest, compute)
    if phase.needs_base(chosen):
        drawn = phase.drawn(chosen, settings.sample_of_trees)
        compute = partial(scoring.base, drawn)
        flat = _kept(directory / "base.npz", _digest(packed, drawn), compute)
        ends = np.cumsum(packed.completions.sum(1))
        arrays["base"] = ragged(np.split(flat, ends[:-1]))
    data = Data(packed, path, questions, arrays)
    return data.part(np.flatnonzero(~out)), data.part(np.flatnonzero(out))


def _digest(data: Examples, under: Any) -> str:
    """A hash of the examples and what they are scored under: arrays, or settings."""
    digest = hashlib.sha256()
    for array in (data.tokens, data.starts, data.prompts, data.completions):
        digest.update(np.asarray(array).tobytes())
    for leaf in jax.tree.leaves(under):
        digest.update(leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf).encode())
    return digest.hexdigest()


def _kept(cache: Path, digest: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The scores in the file `cache` if they are those of `digest`, else computed and kept."""
    if cache.exists():
        with cache.open("rb") as stored, np.load(stored) as kept:
            if kept["of"] == digest:
                return kept["scores"]
    scores = compute()
    if hosts.first():
        with storage.written_whole(cache) as file:
            np.savez(file, of=digest, scores=scores)
    return scores
