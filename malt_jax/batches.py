"""Training rows as padded batches, in an order that is a pure function of (seed, epoch): resuming
is arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from malt_jax.shapes import bucket


@dataclass(frozen=True)
class Sequences:
    """Prompts with completions, as token ids; one shape for a whole training phase.

    `tokens: int32[N, T]` right-padded, `prompts: int32[N]` and `completions: int32[N]` their
    lengths, `width` the padded completion length W.
    """

    tokens: np.ndarray
    prompts: np.ndarray
    completions: np.ndarray
    width: int

    def __len__(self) -> int:
        return len(self.tokens)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "prompts", "completions"],
    meta_fields=["width"],
)
@dataclass(frozen=True)
class Batch:
    """Rows of `Sequences` for the compiled step; rows with `completions` 0 are padding."""

    tokens: Array | np.ndarray
    prompts: Array | np.ndarray
    completions: Array | np.ndarray
    width: int


def pack(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int, context: int
) -> Sequences:
    """(prompt ids, completion ids) rows as arrays, padded to buckets.

    Raises ValueError if a row does not fit the model's context.
    """
    longest = max(len(p) + len(c) for p, c in pairs)
    if longest > context:
        raise ValueError(f"a training row has {longest} tokens, the model's context is {context}")
    tokens = np.full((len(pairs), bucket(longest)), pad_id, np.int32)
    for row, (prompt, completion) in enumerate(pairs):
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : len(prompt) + len(completion)] = completion
    prompts = np.array([len(p) for p, _ in pairs], np.int32)
    completions = np.array([len(c) for _, c in pairs], np.int32)
    return Sequences(tokens, prompts, completions, bucket(int(completions.max())))


def take(sequences: Sequences, rows: np.ndarray) -> Batch:
    """The rows at these indices; index -1 gives a row of padding."""
    real = rows >= 0
    return Batch(
        sequences.tokens[rows],
        np.where(real, sequences.prompts[rows], 1),
        np.where(real, sequences.completions[rows], 0),
        sequences.width,
    )


def plan(rows: int, batch: int, accumulate: int, epochs: int, seed: Sequence[int]) -> np.ndarray:
    """Row indices of every micro-batch of a phase: int[M, batch], -1 for padding.

    Each epoch is a permutation seeded by (seed, epoch), padded to whole optimiser steps, so M is
    a multiple of `accumulate` and no step spans two epochs.
    """
    step = batch * accumulate
    epochs_rows: list[Any] = []
    for epoch in range(epochs):
        order = np.random.default_rng([*seed, epoch]).permutation(rows)
        epochs_rows.append(np.pad(order, (0, -rows % step), constant_values=-1))
    return np.concatenate(epochs_rows).reshape(-1, batch)
