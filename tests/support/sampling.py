"""A sampler of a random model, and requests for it."""

from collections.abc import Sequence

import jax
import numpy as np
import small

from malt_jax.models import lora
from malt_jax.models.lora import Adapter
from malt_jax.rollout.keys import node_keys
from malt_jax.runtime import mesh
from malt_jax.sampler import (
    Completion,
    Request,
    Sampler,
    Sampling,
    Work,
)

STOP = 7


WARM = Sampling(1.0)


def sampler(rows: int = 12, stop_ids: tuple[int, ...] = (STOP,), kv_gib: float = 0.0) -> Sampler:
    model = small.model(scale=4.0)
    return Sampler(model.config, model.params, mesh.make(), rows, stop_ids, pad_id=3, kv_gib=kv_gib)


def requests(n: int = 10, children: int = 3, new: int = 24, longest: int = 150) -> list[Request]:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 100, rng.integers(5, longest)).tolist() for _ in range(n)]
    paths = [(child,) for child in range(children)]
    keys = [node_keys(0, "test", str(i), paths) for i in range(n)]
    return [Request(p, k, new, tag=i) for i, (p, k) in enumerate(zip(prompts, keys, strict=True))]


def run(
    sampler: Sampler,
    asked: Sequence[Request],
    sampling: Sampling = WARM,
    adapters: Sequence[Adapter | None] = (None,),
    work: Work | None = None,
) -> dict[int, list[Completion]]:
    left = iter(asked)
    done = sampler.run(lambda: next(left, None), adapters, sampling=sampling, work=work)
    return {request.tag: completions for request, completions in done}


def adapter(
    sampler: Sampler, seed: int, rank: int = 2, targets: Sequence[str] = lora.TARGETS
) -> Adapter:
    fresh = lora.init(sampler.config, jax.random.key(seed), rank=rank, alpha=8.0, targets=targets)
    leaves, shape = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        shape, [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )
