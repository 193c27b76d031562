"""What a training phase is: a value that says of which rows it learns, what it minimises over them
and how its best step is told. Data sets, training and plans ask it, and nothing else about a phase.

Every mean of a loss is over the whole optimiser step: sums of a micro-batch are divided by counts
of the step, which come in `Extra`. So 1 x 8 and 8 x 1 micro-batches are one loss. Rows that have a
weight, those of replayed rounds, take part in every mean as that many rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from malt_jax.config.credit import CreditSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.settings import SampleSettings
from malt_jax.learn.logprobs import Drawn
from malt_jax.learn.packing import Batch, Examples
from malt_jax.learn.steps import Extra, Loss
from malt_jax.workdir import shards

Row = dict[str, Any]
IDS = pa.list_(pa.int32())
Ids = np.ndarray | Sequence[int]
"""Token ids."""
SettingsT = TypeVar("SettingsT", bound=PhaseSettings)


@dataclass(frozen=True)
class Family:
    """Nodes of a tree with one parent, all of them with a value, in the order they were sampled."""

    siblings: Sequence[Row]
    distinct: Sequence[Row]
    """Without empty and repeated texts, and without texts that have both labels."""
    of_question: Sequence[Row] = ()
    """All nodes of their role on their question that have a value, these among them."""

    @property
    def positives(self) -> list[Row]:
        """Distinct nodes that are to be written more often."""
        return [row for row in self.distinct if row["label"]]

    @property
    def negatives(self) -> list[Row]:
        """Distinct nodes that are to be written less often."""
        return [row for row in self.distinct if not row["label"]]


class Harvest(NamedTuple):
    """A phase's rows of a family, and how many it left out by reason."""

    rows: list[Row]
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class StepData:
    """The data of one optimiser step, arrays of the host. `N` are the examples of the phase, `C`
    the completions of each, `K` micro-batches of `R` rows with `M` places."""

    order: np.ndarray  # int32[K, R, M], the examples as in `packing.Plan`, -1 for none
    examples: Examples
    arrays: Mapping[str, np.ndarray]
    """[N, ...], of `Phase.arrays`; `reference: float32[N, C]`; `base`, of `ragged`; `weight:
    float32[N]` of rows that have one."""
    batch: Batch  # with a leading axis K

    @property
    def places(self) -> np.ndarray:
        """int32[K, R * M], the examples of each micro-batch, -1 for none."""
        return self.order.reshape(len(self.order), -1)

    @property
    def present(self) -> np.ndarray:
        """int32[E], the examples of the step."""
        return self.places[self.places >= 0]

    @property
    def reference(self) -> np.ndarray:
        """float32[K, C * R * M], log-probabilities of each sequence under the reference policy."""
        return self.arrays["reference"][self.places].reshape(len(self.order), -1)

    def of_tokens(self, name: str) -> np.ndarray:
        """The array `name` (of `ragged`, a figure a completion token) at every predicted token, 0
        at padding: float32[K, R, P]."""
        placed = np.zeros(self.batch.sequence.shape, np.float32)
        parts = [self.arrays[name][i] for i in self.present]
        placed[np.asarray(self.batch.counted)] = np.concatenate([placed[:0].ravel(), *parts])
        return placed

    def weigh(self, figures: np.ndarray) -> float:
        """The sum of figures [E] of the present examples, each times its example's weight."""
        if "weight" not in self.arrays:
            return float(figures.sum())
        return float((self.arrays["weight"][self.present].astype(np.float64) * figures).sum())

    def weights(self) -> Extra:
        """`weight: float32[K, R * M]` of every example; nothing where rows have none."""
        if "weight" not in self.arrays:
            return {}
        return {"weight": self.arrays["weight"][self.places]}

    def counts(self, **counts: float) -> Extra:
        """Counts of the whole step to divide by, 1 in the place of 0: float32[K] each, the same
        for all micro-batches."""
        return {
            name: np.full(len(self.order), count or 1, np.float32) for name, count in counts.items()
        }


@dataclass(frozen=True)
class Forecast:
    """What a plan expects of one role's trees."""

    nodes: int
    parents: int
    positive: float  # share of nodes
    contrast: float  # share of parents with a positive and a negative child


@dataclass(frozen=True)
class Phase(Generic[SettingsT]):
    """A training phase. `name` names its settings (`config.NAME`), its data sets
    (`datasets/ROLE/NAME.parquet`) and its checkpoints (`checkpoints/ROLE/NAME`)."""

    name: str
    settings: type[SettingsT]
    schema: pa.Schema
    """Of its data set; with `question_id`, `prompt_token_ids` and what `completions` and `arrays`
    read."""
    counted: str
    """Its number of rows in `datasets/yield.json`."""
    rows: Callable[[Family, CreditSettings], Harvest]
    lacks: Callable[[Mapping[str, Any]], str]
    """Why a role whose counts in `yield.json` these are has no rows, and the way out; empty if it
    has some."""
    completions: Callable[[Sequence[Row], np.ndarray, int], list[list[Ids]]]
    """(rows, held out: bool[N], tokens of the context) -> the token ids of every row's completions,
    `branches` each: an example is its prompt with these. Columns `*_token_ids` of rows are arrays,
    int32[tokens]."""
    branches: int
    """Completions of an example."""
    extra: Callable[[StepData], Extra]
    """The arrays with a leading axis K that `loss` needs beside the batch."""
    loss: Callable[[SettingsT], Loss]
    expected: Callable[[Forecast, CreditSettings], float]
    """Rows that a plan counts with."""
    arrays: Callable[[Sequence[Row], SettingsT], dict[str, np.ndarray]] = field(
        default=lambda rows, settings: {}
    )
    """What `extra` needs of each example of a role, with a leading axis N."""
    reads: tuple[str, ...] = ()
    """Columns of a node that `rows` reads beside its role, prompt, completion, their token ids and
    what the sample is worth (`value`, `label`)."""
    needs_reference: bool = False
    """Whether the loss compares with the policy that the phase starts from: its log-probabilities
    are then computed once, and `StepData.arrays` has them."""
    needs_base: Callable[[SettingsT], bool] = field(default=lambda settings: False)
    """Whether the loss compares with the base without an adapter: the log-probabilities of all
    completion tokens under it are then computed once, and `StepData.arrays` has them as `base`."""
    drawn: Callable[[SettingsT, SampleSettings], Drawn | None] = field(
        default=lambda settings, sample: None
    )
    """The distribution that the samples were drawn from, where the loss is of that: it then gets
    its log-probabilities in place of the model's own, and `entropy: float32[R, P]` in `Extra`."""
    evaluates_start: bool = True
    """Whether the start, which is always evaluated, takes part when the best step is chosen."""
    judged: str = "loss"
    """The held-out metric that is lowest at the best step."""
    warns: Callable[[Mapping[str, Any], Mapping[str, Any]], str] = field(
        default=lambda first, last: ""
    )
    """What went wrong between the metrics of the first step and those of the last (of evaluations,
    where questions are held out), and the way out; empty if nothing did."""
    kl_of_first: bool = False
    """Whether the KL to the start is measured on the first completion of an example alone."""
    accumulates: bool = True
    """Whether an optimiser step may be split into micro-batches."""
    after: tuple[str, ...] = ()
    """Phases of which a role must have gone through one before; none: it may be the first."""
    siblings: int = 1
    """The fewest samples of a parent of which a row can be made."""
    exported: bool = False
    """Whether what it leaves to a later phase is exported too, to `export/NAME/ROLE`."""
    writing: Callable[[Path, pa.Schema], AbstractContextManager[Callable[[list[Row]], None]]] = (
        shards.writing
    )
    """Opens the file of its rows, to be given a shard's at a time, in another order if need be."""


def columns(row: Row, schema: pa.Schema) -> Row:
    """A node's columns of that schema."""
    return {name: row[name] for name in schema.names}


def completions_of(
    *names: str,
) -> Callable[[Sequence[Row], np.ndarray, int], list[list[Ids]]]:
    """`Phase.completions` of a row's own columns `NAME_token_ids`."""

    def completions(rows: Sequence[Row], held_out: np.ndarray, context: int) -> Any:
        return [[row[f"{name}_token_ids"] for name in names] for row in rows]

    return completions


def ragged(parts: Sequence[Any]) -> np.ndarray:
    """One float32 array an example, of its completion tokens: object[N]."""
    whole = np.empty(len(parts), object)
    for i, part in enumerate(parts):
        whole[i] = np.asarray(part, np.float32)
    return whole


def capped(name: str, taken: Sequence[Any], of: Sequence[Any]) -> Counter[str]:
    """What a cap left out."""
    return Counter({f"{name} over the cap": len(of) - len(taken)})
