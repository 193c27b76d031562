"""Narrow passes read the model in panels, where there is room for them, and no bit shows it. And
what compiling leaves behind."""

from dataclasses import replace
from functools import lru_cache

import jax
import pytest
from test_sampler import requests, run, same

from malt_jax import mesh
from malt_jax.models import llama
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.models.panels import Panels
from malt_jax.sampler import Completion, Sampler, programs, session, spec


@lru_cache
def sampler(rows: int) -> Sampler:
    """Of a model whose kernels fill panels."""
    config = LlamaConfig(320, 256, 576, 1, 8, 8, 32, 512, 1e-5, Rope(1e4), tied=True)
    params = jax.tree.map(lambda x: 4 * x, llama.init(config, jax.random.key(0)))
    return Sampler(config, params, mesh.make(), rows, (), 3)


def test_passes_over_panels_and_over_plain_kernels_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
):
    """Children that begin in a pass of 72 rows and end in one of 16 are the same in narrow passes
    alone, and in narrow passes without panels."""
    asked = [
        replace(r, prompt=[t % 320 for t in r.prompt], max_new_tokens=30 if i < 2 else 8)
        for i, r in enumerate(requests(24, longest=40))
    ]

    def sampled(rows: int, count: int) -> dict[int, list[Completion]]:
        return run(sampler(rows), asked[:count])

    assert isinstance(spec.narrow(sampler(72))[1]["head"], Panels)
    wide, narrow = sampled(72, 24), sampled(12, 2)
    monkeypatch.setattr(session, "NARROW", 0)
    plain = sampled(12, 2)
    for i in (0, 1):
        assert same(wide[i], narrow[i])
        assert same(wide[i], plain[i])


def test_panels_are_a_copy_that_needs_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spec, "available_bytes", lambda: 2**20)
    one = sampler(12)
    assert spec.narrow(one)[1] is one.params


def test_what_compiling_has_freed_is_given_back(monkeypatch: pytest.MonkeyPatch):
    """Once a program, not at every call of it."""
    given: list[int] = []
    monkeypatch.setattr(programs, "_malloc_trim", given.append)
    programs.programs("cpu")
    fresh = jax.jit(lambda x: x + 1)
    fresh(0).block_until_ready()
    count = len(given)
    assert count > 0
    fresh(1).block_until_ready()
    assert len(given) == count
