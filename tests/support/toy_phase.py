"""A phase outside the package: clipped policy gradients on a tree's own samples.

    A = V(x) - mean V of x and its siblings,    L = -1/N sum_t min(r_t A, clip(r_t, 0.8, 1.2) A)

r_t = exp(log pi(y_t) - b_t), b_t the log-probability that y_t was sampled with, N the tokens of the
optimiser step. Siblings of values (1, 1/3, 0) have A = 5/9, -1/9 and -4/9.
"""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from malt_jax.config.phase import PhaseSettings
from malt_jax.config.schema import positive, setting
from malt_jax.learn.phases.phase import IDS, Harvest, Phase, completions_of

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("advantage", pa.float32()),
        ("behaviour_logprobs", pa.list_(pa.float32())),
        ("prompt_token_ids", IDS),
        ("completion_token_ids", IDS),
    ]
)


@dataclass(frozen=True)
class ToySettings(PhaseSettings):
    clip: float = setting(0.2, "how far a ratio may go from 1", positive())


def rows(family, credit) -> Harvest:
    """Every graded sibling, repeated texts too: they are part of the mean."""
    if not family.siblings:
        return Harvest([], {})
    mean = sum(row["value"] for row in family.siblings) / len(family.siblings)
    worth = [row | {"advantage": row["value"] - mean} for row in family.siblings]
    kept = [{name: row[name] for name in SCHEMA.names} for row in worth if row["advantage"]]
    return Harvest(kept, {"no advantage": len(worth) - len(kept)})


def arrays(rows, settings) -> dict[str, np.ndarray]:
    """`advantage: float32[N]`, `behaviour: float32[N, T]`."""
    lengths = [len(row["behaviour_logprobs"]) for row in rows]
    behaviour = np.zeros((len(rows), max(lengths)), np.float32)
    for padded, row, length in zip(behaviour, rows, lengths, strict=True):
        padded[:length] = row["behaviour_logprobs"]
    return {"advantage": np.array([row["advantage"] for row in rows]), "behaviour": behaviour}


def extra(step) -> dict[str, np.ndarray]:
    """`advantage, behaviour: float32[K, R, P]`, of every predicted token; `tokens: float32[K]`."""
    batch, many = step.batch, len(step.order)
    counted, micro_batch = batch.counted, np.arange(many)[:, None, None]
    example = step.places[micro_batch, np.where(counted, batch.sequence, 0)]
    position = np.take_along_axis(batch.positions, batch.source, -1)
    token = np.where(counted, position + 1 - step.examples.prompts[example], 0)
    return {
        "advantage": np.where(counted, step.arrays["advantage"][example], 0).astype(np.float32),
        "behaviour": np.where(counted, step.arrays["behaviour"][example, token], 0),
    } | step.counts(tokens=step.examples.completions[step.present].sum())


def loss(settings: ToySettings):
    return partial(_loss, settings)


def _loss(settings: ToySettings, logps, batch, extra):
    counted, advantage = jnp.asarray(batch.counted), extra["advantage"]
    ratio = jnp.exp(jnp.where(counted, logps - extra["behaviour"], 0.0))
    clipped = jnp.clip(ratio, 1 - settings.clip, 1 + settings.clip)
    gain = jnp.minimum(ratio * advantage, clipped * advantage)
    drift = jnp.sum(jnp.abs(ratio - 1))  # of the policy from the one that sampled, a token
    return -jnp.sum(gain) / extra["tokens"], {"drift": drift / extra["tokens"]}


PHASE = Phase(
    name="toy",
    settings=ToySettings,
    schema=SCHEMA,
    counted="toy_rows",
    rows=rows,
    lacks=lambda counts: "",
    completions=completions_of("completion"),
    branches=1,
    extra=extra,
    loss=loss,
    expected=lambda forecast, credit: forecast.nodes,
    arrays=arrays,
    reads=("behaviour_logprobs",),
)
