"""TPU programs compile, ahead of time, for machines that are not here. It takes libtpu, of
`pip install -e '.[tpu]'`, and no TPU."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from malt_jax import mesh as meshes
from malt_jax import optim, steps
from malt_jax.batches import Batch
from malt_jax.models import llama, lora, paged
from malt_jax.models.attention import Partial, implementation, writers
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.sampler import Sampling, schedule
from malt_jax.sampler.programs import Fixed, programs

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


def structs(mesh: Mesh, tree: Any, axes: Callable[[int], tuple[str | None, ...]]) -> Any:
    """Arrays or shapes as shapes on the mesh; `axes(ndim)` are their logical axes."""

    def of(x: Any) -> jax.ShapeDtypeStruct:
        sharding = meshes.sharding(mesh, x.shape, axes(x.ndim))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(of, tree)


def sampling(kind: str, mesh: Mesh) -> Program:
    """The sampler's own program, in bfloat16 on two layers of Llama-3.1-8B's sizes (a small
    vocabulary), three adapters stacked: 64 rows, 256 pages a shard."""
    config = LlamaConfig(4096, 4096, 14336, 2, 32, 8, 128, 8192, 1e-5, Rope(500000.0))
    shapes = llama.param_shapes(config, jnp.bfloat16)
    adapter = jax.eval_shape(
        lambda: lora.stack([lora.init(config, jax.random.key(0), rank=16, alpha=32.0)] * 3)
    )
    params, adapter = (
        jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            tree,
            meshes.tree_shardings(mesh, tree),
        )
        for tree in (shapes, adapter)
    )

    def rows(ndim: int) -> tuple[str | None, ...]:
        return ("batch", *[None] * (ndim - 1)) if ndim else ()

    shards, pages, size, columns = paged.shards_of(mesh), 256, 128, 65
    pool = [
        (
            jax.ShapeDtypeStruct((shards, pages, 8, 128, size), jnp.bfloat16),
            jax.ShapeDtypeStruct((shards, pages, 8, size, 128), jnp.bfloat16),
        )
    ] * config.num_layers
    pool = structs(mesh, pool, lambda _: ("batch", None, "heads", None, None))
    gates = jax.ShapeDtypeStruct((3, 48), jnp.float32)
    fixed = Fixed(config, mesh, implementation("tpu"), writers("tpu"), (2,), 0)
    own = programs("tpu")
    if kind == "decode":
        shard = [schedule.Shard(pages)] * shards
        plan = structs(mesh, schedule.plan(shard, 64, (pages, pages), 3, columns, size), rows)
        draw = partial(own.decode.lower, sampling=Sampling(0.7))
        return Lowered(draw), [fixed, params, adapter, gates, pool, pool, plan, np.int32(0)]
    tiles = paged.Tiles(
        *(np.zeros((shards, 16, *more), np.int32) for more in ([size // 4], [], [], [columns])),
        np.zeros((), np.int32),
    )
    at = jax.ShapeDtypeStruct((shards, 16), jnp.int32)
    args = [fixed, params, adapter, gates, pool, structs(mesh, tiles, rows)]
    return own.prefill, [*args, structs(mesh, at, rows)]


@dataclass(frozen=True)
class Lowered:
    """Something jitted that is lowered with further arguments."""

    lower: Callable[..., Any]


PROGRAMS |= {f"sampler {kind}": partial(sampling, kind) for kind in ("decode", "prefill")}


def training(mesh: Mesh) -> Program:
    """An optimiser step in bfloat16 on two layers and a vocabulary of 32k: two rows of 1,024
    tokens."""
    config = LlamaConfig(32768, 1024, 2816, 2, 8, 4, 128, 8192, 1e-5, Rope(500000.0))
    tx = optim.adamw(1e-4, 10, warmup=0.1, weight_decay=0.0, b1=0.9, b2=0.999, clip_norm=1.0)
    adapter = jax.eval_shape(lambda: lora.init(config, jax.random.key(0), rank=16, alpha=32.0))
    state = {"adapter": adapter, "opt_state": jax.eval_shape(tx.init, adapter)}
    params, state = (
        jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            tree,
            meshes.tree_shardings(mesh, tree),
        )
        for tree in (llama.param_shapes(config, jnp.bfloat16), state)
    )

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        sharding = meshes.sharding(mesh, shape, (None, "batch", None))
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)

    def loss(logps: jax.Array, batch: Batch, extra: Any) -> Any:
        return -jnp.sum(jnp.where(batch.sequence < batch.sequences, logps, 0.0)), {}

    packed = [array(1, 2, 1024)] * 4 + [array(1, 2, 512)] * 3
    step = steps.training(config, tx, loss, state, remat="keep_products")
    return step, [params, state, Batch(*packed, sequences=8), {}]


@lru_cache
def compiled(name: str, program: str) -> str:
    """The optimised program of one chip, as text."""
    function, args = (PROGRAMS | {"training": training})[program](machine(name))
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


@pytest.mark.parametrize("name", MACHINES)
def test_a_decoding_step_copies_no_pool(name: str):
    """Written element by element, the pool went into another layout and back at every step."""
    text = compiled(name, "sampler decode")
    loop = [line for line in text.splitlines() if "while/body" in line]
    assert loop
    assert not [x for x in loop if re.search(r" = \(?bf16\[(1,)?256,4,128,128\]\S* copy", x)]


@pytest.mark.parametrize("name", MACHINES)
def test_the_training_step_compiles_and_holds_no_logits_of_a_row(name: str):
    """512 predictions by a share of 16,384 of the vocabulary, in whatever type."""
    assert not re.search(r"\[(\d+,)*512,(16384|32768)\]", compiled(name, "training"))
