"""Passes of the model without a gradient: log-probabilities of samples under the reference policy
or the base, and how far a policy has moved from its base."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from malt_jax.learn import steps
from malt_jax.learn.logprobs import Drawn, base_logprobs, sequence_logprobs
from malt_jax.learn.packing import Batch, Examples, examples, plan, take
from malt_jax.learn.phases.phase import Row
from malt_jax.models import Model
from malt_jax.models.lora import Adapter
from malt_jax.runtime import process
from malt_jax.runtime.mesh import fetch


@dataclass(frozen=True)
class Scoring:
    """A pass over all examples, `batch` at a time."""

    data: Examples
    model: Model
    mesh: Mesh
    batch: int

    def _passes(
        self, score: Callable[[Batch], Array], title: str
    ) -> Iterator[tuple[np.ndarray, Batch, np.ndarray]]:
        """(examples of each place int32[...], -1 for none; micro-batch; its scores), in turn."""
        rows = steps.rows(self.mesh)
        once = plan(self.data, batch=self.batch, accumulate=1, epochs=1, seed=[0], rows=rows)
        for i in tqdm(range(len(once)), desc=title, unit="batch"):
            batches = take(self.data, once, i, self.model.tokenizer.pad_id)
            scores = score(steps.place(self.mesh, batches, {})[0])
            with process.watched(title):
                fetched = fetch(scores)
            yield once.order[i].reshape(-1), batches, fetched

    def reference(self, adapter: Adapter | None) -> np.ndarray:
        """log pi of every completion under the base and `adapter`: float32[N, C]."""
        model, branches = self.model, self.data.completions.shape[1]
        scores = np.zeros((len(self.data), branches), np.float32)
        score = partial(sequence_logprobs, model.config, model.params, adapter)
        for order, _, sums in self._passes(score, "reference"):
            scores[order[order >= 0]] = sums.reshape(-1, branches)[order >= 0]
        return scores

    def base(self, drawn: Drawn | None) -> np.ndarray:
        """Log-probabilities of all completion tokens under the base without an adapter, of the
        distribution that `drawn` says or the model's own, example by example: float32."""
        model, lengths = self.model, self.data.completions.sum(1)
        parts: list[np.ndarray] = [np.zeros(0, np.float32)] * len(lengths)
        score = partial(base_logprobs, model.config, model.params, drawn=drawn)
        for order, batch, logps in self._passes(score, "base"):
            present = order[order >= 0]
            flat = logps[np.asarray(batch.counted)]
            ends = np.cumsum(lengths[present])[:-1]
            for i, part in zip(present, np.split(flat, ends), strict=True):
                parts[i] = part
        return np.concatenate(parts)


SAMPLED = ("question_id", "prompt_token_ids", "completion_token_ids", "behaviour_logprobs")
"""What `kl_to_base` reads of a sample."""


def kl_to_base(rows: Sequence[Row], model: Model, mesh: Mesh, batch: int, drawn: Drawn) -> float:
    """KL(b || base) in nats a token, estimated on samples of b, a policy at some temperature:

        1/N sum_t (log b(y_t) - log base(y_t)),    N the completion tokens of all samples

    `rows` have the columns `SAMPLED`, with log b(y_t) as it was stored; `drawn` says how they were
    drawn, and the base is taken at the same temperature. The base scores `batch` samples at a time.

    Log-probabilities (-1, -2) and (-0.5), and (-1.5, -2.5) and (-0.7) under the base, have the KL
    (0.5 + 0.5 + 0.2) / 3 = 0.4. This is k1 of `policy_losses`: unbiased, and without the tail of k3
    where the base finds a token far more likely than b did.
    """
    packed = examples(
        [row["prompt_token_ids"] for row in rows],
        [[row["completion_token_ids"]] for row in rows],
        model.config.context,
        [f"question {row['question_id']}" for row in rows],
    )
    ours = np.concatenate([row["behaviour_logprobs"] for row in rows])
    theirs = Scoring(packed, model, mesh, batch).base(drawn)
    return float(np.mean(ours - theirs, dtype=np.float64))
