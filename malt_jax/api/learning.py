"""What is learned from trees: values, rows, adapters."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from malt_jax import credit, recipe
from malt_jax.config.credit import CreditSettings
from malt_jax.learn import datasets, examples
from malt_jax.learn.loop import fit
from malt_jax.learn.phases import PHASES
from malt_jax.models import Model, lora
from malt_jax.models.lora import Adapter
from malt_jax.runtime import mesh
from malt_jax.workdir import shards

Row = dict[str, Any]


def propagate(rewards: ArrayLike) -> tuple[Array, ...]:
    """Values of all nodes of full trees: V(parent) is the mean of V(child).

    Args:
        rewards: float32[B, n_1, ..., n_D], or nested lists of it: one reward a leaf, NaN where a
            leaf is missing.

    Returns:
        D arrays float32[B, n_1], float32[B, n_1, n_2], ...: a value for every node of each depth.

    Raises ValueError if `rewards` has no axis beside the batch.

    Example: propagate([[[1, 0], [1, 1]]]) gives [[0.5, 1.0]] for two nodes of the first role, and
    the leaves' own rewards for the second.

    Source: arXiv 2412.01928, section 4.2.
    """
    return credit.propagate(jnp.asarray(rewards, jnp.float32))


def rows(trees: Sequence[Sequence[Row]], role: str, phase: str = "sft") -> list[Row]:
    """What a role learns from in a phase, in TRL's forms with token ids beside the texts.

    Args:
        trees: of `grow`.
        phase: "sft" (positives), "dpo" (pairs of siblings), "kto" (samples with labels), "rl"
            (samples with advantages).

    Source: arXiv 2412.01928, section 4.3; KTO, arXiv 2402.01306.
    """
    nodes = [node for tree in trees for node in tree]
    return datasets.harvest(nodes, [role], CreditSettings())[role].rows[phase]


def train(
    model: Model,
    data: Sequence[Row],
    phase: str = "sft",
    *,
    adapter: Adapter | None = None,
    rank: int = 16,
    alpha: float = 32.0,
    directory: str | Path | None = None,
    temperature: float = 0.3,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    **settings: Any,
) -> Adapter:
    """A LoRA adapter trained on rows of `rows`.

    Args:
        adapter: to go on from, and the reference of DPO and KTO; None begins with a fresh one of
            `rank` and `alpha`.
        directory: where checkpoints and figures go, and from where an interrupted training goes on;
            None keeps nothing.
        temperature, top_k, top_p: of the team that grew the trees; for "rl", whose gradient is that
            of what was sampled.
        settings: of the phase, as in `config.PHASE.*`: learning_rate, epochs, batch, beta, ...

    Raises ValueError for an unknown or impossible setting, by its key, and without rows.
    """
    if not data:
        raise ValueError("data: no rows to learn from; grow more trees, or lower the threshold")
    devices, trained_in = mesh.make(), PHASES[phase]
    config = recipe.base().to_dict()
    config |= {"seed": seed, "model": config["model"] | {"path": model.source}}
    config["sample"] |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    config[phase] |= settings
    parsed = recipe.parse(config)
    if adapter is None:
        adapter = lora.init(model.config, jax.random.key(seed), rank=rank, alpha=alpha)
    adapter = jax.tree.map(mesh.put, adapter, mesh.tree_shardings(devices, adapter))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(directory or scratch) / phase
        shards.write(place / "rows.parquet", data, trained_in.schema)
        sides = examples.load(
            place / "rows.parquet",
            place,
            trained_in,
            parsed,
            model,
            devices,
            adapter,
        )
        return fit(place, trained_in, parsed, model, devices, adapter, sides, phase)
