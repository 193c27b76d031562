"""What a phase is fed: its rows as packed examples, with the reference policy's log-probabilities,
on two sides, one to train on and one held out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from malt_jax.learn import steps
from malt_jax.learn.logprobs import sequence_logprobs
from malt_jax.learn.packing import Batch, Examples, Plan, examples, plan, take
from malt_jax.learn.phases.phase import Phase, StepData
from malt_jax.models import Model
from malt_jax.models.lora import Adapter
from malt_jax.runtime import hosts, process
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
    cache: Path,
    phase: Phase[Any],
    model: Model,
    mesh: Mesh,
    reference: Adapter | None,
    *,
    batch: int,
    share: float,
    seed: int,
) -> tuple[Data, Data]:
    """The rows of a phase's data set: those to train on, and the held-out ones.

    Where the phase needs the reference policy's log-probabilities (`reference` None: those of the
    model without an adapter), they are computed once, `batch` rows at a time, and kept in the file
    `cache`. Raises ValueError for a row that `packing.examples` refuses.
    """
    rows = shards.read_one(path, arrays="_token_ids")
    questions = np.array([row["question_id"] for row in rows])
    out = held_out(questions, share, seed)
    packed = examples(
        [row["prompt_token_ids"] for row in rows],
        phase.completions(rows, out, model.config.context),
        model.config.context,
        [f"{path}: question {name}" for name in questions],
    )
    arrays = phase.arrays(rows)
    if phase.needs_reference:
        arrays["reference"] = _reference(packed, cache, model, mesh, reference, batch)
    data = Data(packed, path, questions, arrays)
    return data.part(np.flatnonzero(~out)), data.part(np.flatnonzero(out))


def _reference(
    data: Examples, cache: Path, model: Model, mesh: Mesh, adapter: Adapter | None, batch: int
) -> np.ndarray:
    """log pi_ref of every completion, float32[N, C], from `cache` if it holds those of the same
    examples under the same adapter."""
    digest = hashlib.sha256()
    for array in (data.tokens, data.starts, data.prompts, data.completions):
        digest.update(np.asarray(array).tobytes())
    for leaf in jax.tree.leaves(fetch(adapter)):
        digest.update(leaf.tobytes())
    if cache.exists():
        with cache.open("rb") as stored, np.load(stored) as kept:
            if kept["of"] == digest.hexdigest():
                return kept["scores"]
    branches = data.completions.shape[1]
    once = plan(data, batch=batch, accumulate=1, epochs=1, seed=[0], rows=steps.rows(mesh))
    scores = np.zeros((len(data), branches), np.float32)
    for i in tqdm(range(len(once)), desc="reference", unit="batch"):
        batches, _ = steps.place(mesh, take(data, once, i, model.tokenizer.pad_id), {})
        sums = sequence_logprobs(model.config, model.params, adapter, batches)
        with process.watched("reference"):
            scored = fetch(sums).reshape(-1, branches)
        order = once.order[i].reshape(-1)
        scores[order[order >= 0]] = scored[order >= 0]
    if hosts.first():
        with storage.written_whole(cache) as file:
            np.savez(file, of=digest.hexdigest(), scores=scores)
    return scores
