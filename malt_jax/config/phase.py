"""The settings that every training phase has. What a phase adds, or has another default for, stands
in its own file below `malt_jax/learn/phases/`."""

from dataclasses import dataclass
from typing import Literal

from malt_jax.config.schema import Rule, at_least, positive, setting


@dataclass(frozen=True)
class PhaseSettings:
    """How a phase goes through its data: `config.PHASE.*`."""

    learning_rate: float = setting(
        2e-4, "peak of the schedule; ours, the paper gives only multipliers", positive()
    )
    batch: int = setting(8, "examples of a micro-batch (for DPO pairs), packed", positive())
    accumulate: int = setting(1, "micro-batches an optimiser step", positive())
    epochs: int = setting(2, "passes over the data; the paper: 1 to 10 by its size", positive())
    warmup: float = setting(
        0.1,
        "fraction of the steps with a rising learning rate; after it a cosine to 0",
        Rule(lambda share: 0 <= share < 1, "is a fraction of the steps, in [0, 1)"),
    )
    weight_decay: float = setting(0.0, "of AdamW", at_least(0, "must not be negative"))
    clip_norm: float = setting(1.0, "largest norm of the gradient", positive())
    held_out: float = setting(
        0.1,
        "share of the questions that are not trained on; the same ones in every phase",
        Rule(lambda share: 0 <= share < 1, "is a share of questions, in [0, 1)"),
    )
    eval_every: int = setting(
        20, "optimiser steps between held-out evaluations; the best is kept (ours)", positive()
    )
    patience: int = setting(
        0,
        "evaluations without a better one that end the phase; 0: never",
        at_least(0, "must not be negative (0 is off)"),
    )
    max_nonfinite: int = setting(
        3, "steps with a loss or gradient that is not finite that end the run", positive()
    )
    checkpoint_every: int = setting(
        100, "optimiser steps between checkpoints; 3 minutes if that is sooner", positive()
    )
    remat: Literal["keep_all", "keep_products", "keep_inputs"] = setting(
        "keep_products",
        "what a layer keeps for its backward pass: keep_all, keep_products (the outputs of its "
        "matrix products; the rest is cheap to redo) or keep_inputs (least memory, but half as "
        "much work again)",
    )
