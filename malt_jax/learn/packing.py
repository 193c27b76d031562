"""Training data as packed rows of one shape, in an order that is a pure function of the seed:
resuming is arithmetic.

An example is a prompt with one completion (SFT, KTO) or more (a DPO pair: chosen, rejected). In a
row it stands as its prompt followed by its completions, each a branch that sees the prompt and
itself; so a prompt is computed once, and packing and sharing are one mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import Array

_WINDOW = 128  # optimiser steps among which the examples of a stretch are dealt by length
_ALIGN = 8  # sizes are multiples of it


@dataclass(frozen=True)
class Examples:
    """A phase's data, flat: example i is `tokens[starts[i]:starts[i + 1]]`, its prompt and then its
    completions."""

    tokens: np.ndarray  # int32[all tokens]
    starts: np.ndarray  # int64[N + 1]
    prompts: np.ndarray  # int32[N], their lengths
    completions: np.ndarray  # int32[N, C], theirs; 0 where an example has fewer than C

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens an example takes in a row: int64[N]."""
        return np.diff(self.starts)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "positions", "example", "branch", "source", "target", "sequence"],
    meta_fields=["sequences"],
)
@dataclass(frozen=True)
class Batch:
    """A micro-batch: R rows of L tokens, P predictions a row, S = `sequences` completions in all.

    As `take` gives it, every array has a leading axis K: the micro-batches of an optimiser step.
    """

    tokens: Array | np.ndarray  # int32[R, L]
    positions: Array | np.ndarray  # int32[R, L], in the token's own sequence
    example: Array | np.ndarray  # int32[R, L], which one of its row, -1 for padding
    branch: Array | np.ndarray  # int32[R, L], 0 the prompt, 1 ... C the completions
    source: Array | np.ndarray  # int32[R, P], place in the row of the state that predicts
    target: Array | np.ndarray  # int32[R, P], the token predicted
    sequence: Array | np.ndarray  # int32[R, P], completion it is of; S for padding
    sequences: int

    @property
    def counted(self) -> Array | np.ndarray:
        """bool[R, P], which predictions are no padding."""
        return self.sequence < self.sequences


@dataclass(frozen=True)
class Plan:
    """Which examples every optimiser step of a phase has and where: one shape for all of them.

    `order: int32[T, K, R, M]` holds example indices, -1 for none: T steps, M places a row. The
    completion c of place m in row r is sequence (r * M + m) * C + c of its micro-batch.
    """

    order: np.ndarray
    length: int  # L, tokens of a row
    predictions: int  # P, predicted tokens of a row

    def __len__(self) -> int:
        return len(self.order)

    def present(self, step: int) -> np.ndarray:
        """int32[E], the examples of a step as they stand in its rows."""
        return self.order[step][self.order[step] >= 0]


def examples(
    prompts: Sequence[np.ndarray | Sequence[int]],
    completions: Sequence[Sequence[np.ndarray | Sequence[int]]],
    context: int,
    names: Sequence[str],
) -> Examples:
    """Token ids of N prompts and, for each, its completions; `names` are what errors call them.

    Raises ValueError for an example of which a sequence (prompt and one completion) is longer than
    the model's context, or without anything to predict from or to predict.
    """
    most = max(map(len, completions), default=1)
    lengths = np.zeros((len(prompts), most), np.int32)
    for i, (prompt, branches) in enumerate(zip(prompts, completions, strict=True)):
        lengths[i, : len(branches)] = [len(branch) for branch in branches]
        if not len(prompt) or not lengths[i, : len(branches)].all():
            raise ValueError(f"{names[i]}: an empty prompt or completion; drop the row")
        if len(prompt) + lengths[i].max() > context:
            raise ValueError(
                f"{names[i]}: a prompt of {len(prompt)} tokens with a completion of "
                f"{lengths[i].max()} is longer than the model's context of {context}; drop the "
                "row, or sample with a smaller config.data.max_chars or "
                "config.roles.ROLE.max_new_tokens"
            )
    parts = [
        np.asarray(part, np.int32)
        for prompt, branches in zip(prompts, completions, strict=True)
        for part in (prompt, *branches)
    ]
    prompt_lengths = np.fromiter(map(len, prompts), np.int32, len(prompts))
    starts = np.concatenate([[0], np.cumsum(prompt_lengths + lengths.sum(1, dtype=np.int64))])
    return Examples(np.concatenate(parts), starts, prompt_lengths, lengths)


def plan(
    data: Examples,
    *,
    batch: int,
    accumulate: int,
    epochs: int,
    seed: Sequence[int],
    rows: int = 1,
) -> Plan:
    """Deals the examples out: `batch` times `accumulate` an optimiser step (the last of an epoch
    has what is left), spread over `accumulate` micro-batches of `rows` rows.

    An epoch is a permutation by (seed, epoch). Within a stretch of it examples are dealt so that
    steps, and in a step rows, are about equally long: with one shape for all of them, what the
    longest has more than the others is padding. `rows` is the mesh's number of batch shards.
    """
    epochs_steps = [
        _steps(data.sizes, batch * accumulate, np.random.default_rng([*seed, epoch]))
        for epoch in range(epochs)
    ]
    return arrange(data, np.concatenate(epochs_steps), accumulate, rows)


def arrange(data: Examples, steps: np.ndarray, accumulate: int, rows: int) -> Plan:
    """A plan in which step t has the examples `steps[t]` (int[T, E], -1 for none), laid out in
    rows of about equal length."""
    order = _rows(steps, data.sizes, accumulate * rows)
    order = order.reshape(len(order), accumulate, rows, -1)
    length = _total(order, data.sizes).max()
    predictions = _total(order, data.completions.sum(1)).max()
    return Plan(order, _aligned(length), _aligned(predictions))


def _steps(sizes: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
    """Examples of every step of an epoch: int64[T, step], -1 padded."""
    shuffled = rng.permutation(len(sizes))
    whole = len(sizes) // step
    steps = []
    for part in np.array_split(np.arange(whole), max(1, -(-whole // _WINDOW))):
        if not len(part):
            continue
        window = shuffled[part[0] * step : (part[-1] + 1) * step]
        # From the longest down, a round at a time: the shortest step so far gets the longest.
        rounds = window[np.argsort(-sizes[window], kind="stable")].reshape(step, -1)
        totals, groups = np.zeros(len(part), np.int64), np.empty((len(part), step), np.int64)
        for i, turn in enumerate(rounds):
            to = np.argsort(totals, kind="stable")
            groups[to, i] = turn
            totals[to] += sizes[turn]
        steps.append(rng.permutation(groups))
    rest = shuffled[whole * step :]
    if len(rest):
        steps.append(np.pad(rest, (0, step - len(rest)), constant_values=-1)[None])
    return np.concatenate(steps)


def _rows(steps: np.ndarray, sizes: np.ndarray, rows: int) -> np.ndarray:
    """The examples of steps [T, E] in rows of about equal length: int32[T, rows, M]."""
    sizes = np.append(sizes, 0)  # of index -1
    every = np.arange(len(steps))
    ordered = np.take_along_axis(steps, np.argsort(-sizes[steps], axis=1, kind="stable"), 1)
    totals, counts = np.zeros((2, len(steps), rows), np.int64)
    placed = np.full((len(steps), rows, steps.shape[1]), -1, np.int32)
    for example in ordered.T:
        row = np.argmin(totals, axis=1)
        placed[every, row, counts[every, row]] = example
        totals[every, row] += sizes[example]
        counts[every, row] += example >= 0
    return placed[:, :, : counts.max()]


def _total(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sum of the examples' `values` over the places of every row: int64[T, K, R]."""
    return np.append(values, 0)[order].sum(-1)


def _aligned(size: int) -> int:
    return int(-(-size // _ALIGN) * _ALIGN)


def take(data: Examples, plan: Plan, step: int, pad_id: int) -> Batch:
    """The micro-batches of an optimiser step, numpy arrays with a leading axis K."""
    order = plan.order[step]
    accumulate, rows, places = order.shape
    branches = data.completions.shape[1]
    none = rows * places * branches
    shape, predictions = (accumulate, rows, plan.length), (accumulate, rows, plan.predictions)
    tokens, example = np.full(shape, pad_id, np.int32), np.full(shape, -1, np.int32)
    positions, branch = np.zeros((2, *shape), np.int32)
    source, target = np.zeros((2, *predictions), np.int32)
    sequence = np.full(predictions, none, np.int32)
    for k, r in np.ndindex(accumulate, rows):
        at = said = 0
        for m, i in enumerate(order[k, r]):
            if i < 0:
                continue
            whole = data.tokens[data.starts[i] : data.starts[i + 1]]
            prompt, span = int(data.prompts[i]), slice(at, at + len(whole))
            tokens[k, r, span], example[k, r, span] = whole, m
            positions[k, r, at : at + prompt] = np.arange(prompt)
            last, at = at + prompt - 1, at + prompt
            for c, length in enumerate(data.completions[i]):
                span, out = slice(at, at + length), slice(said, said + length)
                positions[k, r, span] = np.arange(prompt, prompt + length)
                branch[k, r, span] = c + 1
                source[k, r, out] = np.arange(at - 1, at + length - 1)
                source[k, r, said : said + min(length, 1)] = last
                target[k, r, out] = tokens[k, r, span]
                sequence[k, r, out] = (r * places + m) * branches + c
                at, said = at + length, said + length
    return Batch(tokens, positions, example, branch, source, target, sequence, none)
