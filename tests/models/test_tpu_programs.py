"""TPU programs compile, ahead of time, for machines that are not here. It takes libtpu, of
`pip install -e '.[tpu]'`, and no TPU."""

import os
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from malt_jax import mesh as meshes
from malt_jax.models.attention import Partial, implementation

pytest.importorskip("libtpu", reason="pip install -e '.[tpu]' brings the TPU's compiler")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks no server what machine this is
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # there is no TPU to fight for

MACHINES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1"}  # four chips each
Program = tuple[Callable[..., Any], list[Any]]
"""What to compile: a function for `jax.jit`, or one jitted already, and the shapes of its
arguments with their shardings."""


@lru_cache
def machine(name: str) -> Mesh:
    """A mesh of fsdp 2 and tensor 2 over the chips of `MACHINES[name]`."""
    found = topologies.get_topology_desc(platform="tpu", topology_name=MACHINES[name])
    chips = np.array(found.devices).reshape(1, 2, 2)
    return Mesh(chips, meshes.AXES, axis_types=(AxisType.Auto,) * 3)


def attention(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> Program:
    """Pages on groups of chips and heads within a group, as the sampler has them."""
    pages, heads, queries, size, tokens = shape
    paged = PartitionSpec(("data", "fsdp"), "tensor" if heads % 2 == 0 else None)
    plain = PartitionSpec(("data", "fsdp"))
    specs = (paged, paged, paged, plain)
    shapes = [
        ((pages, heads, queries, size), dtype),
        ((pages, heads, size, tokens), dtype),
        ((pages, heads, tokens, size), dtype),
        ((pages, queries), jnp.int32),
    ]
    mapped = jax.shard_map(
        implementation("tpu"),
        mesh=mesh,
        in_specs=specs,
        out_specs=Partial(paged, paged, paged),
        check_vma=False,
    )
    return mapped, [
        jax.ShapeDtypeStruct(*x, sharding=NamedSharding(mesh, spec))
        for x, spec in zip(shapes, specs, strict=True)
    ]


# W, K, M, H, T
ATTENTION = {
    "llama-8b decode": ((64, 8, 12, 128, 128), jnp.bfloat16),
    "llama-8b prefill": ((16, 8, 256, 128, 128), jnp.bfloat16),
    "llama-8b, 256 readers": ((16, 8, 1024, 128, 128), jnp.bfloat16),
    "smollm2 decode": ((64, 3, 9, 64, 128), jnp.float32),
    "smollm2 decode, bfloat16": ((64, 3, 9, 64, 128), jnp.bfloat16),
    "odd sizes": ((14, 1, 5, 80, 128), jnp.float32),
}
PROGRAMS: dict[str, Callable[[Mesh], Program]] = {
    name: partial(attention, shape, dtype) for name, (shape, dtype) in ATTENTION.items()
}


@lru_cache
def compiled(name: str, program: str) -> str:
    """The optimised program of one chip, as text."""
    function, args = PROGRAMS[program](machine(name))
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    return jitted.lower(*args).compile().as_text()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", MACHINES)
def test_a_program_compiles_with_its_kernel(name: str, program: str):
    assert 'custom_call_target="tpu_custom_call"' in compiled(name, program)


@pytest.mark.parametrize("program", ["llama-8b decode", "smollm2 decode, bfloat16"])
@pytest.mark.parametrize("name", MACHINES)
def test_pages_are_read_where_they_lie(name: str, program: str):
    """No copy of the pool, neither for another layout nor to fill up its lanes."""
    (pages, heads, _, size, tokens), dtype = ATTENTION[program]
    heads = heads // 2 if heads % 2 == 0 else heads
    kind = {jnp.bfloat16: "bf16", jnp.float32: "f32"}[dtype]
    text = compiled(name, program)
    for a, b in ((size, tokens), (tokens, size)):
        shape = rf"{kind}\[{pages // 2},{heads},{a},{b}\]"
        assert not re.search(rf" = \(?{shape}\S* (copy|transpose|fusion|pad)\(", text)
