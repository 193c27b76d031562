"""TPU programs compile, ahead of time, for machines that are not here. It takes libtpu, of
`pip install -e '.[tpu]'`, and no TPU."""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.gsm8k import get_config as gsm8k
from malt_jax.config.lora import LoraSettings
from malt_jax.config.settings import SampleSettings
from malt_jax.learn.phases import PHASES
from malt_jax.models import lora
from malt_jax.models.attention import Partial, implementation
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.plan import programs, topology
from malt_jax.plan.programs import Packed, Pass
from malt_jax.recipe import parse
from malt_jax.runtime import mesh as meshes

pytest.importorskip("libtpu", reason="pip install -e '.[tpu]' brings the TPU's compiler")

MACHINES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1"}  # four chips each


@lru_cache
def machine(name: str) -> Mesh:
    """A mesh of fsdp 2 and tensor 2 over the chips of `MACHINES[name]`."""
    return meshes.make(1, 2, 2, topology.devices(MACHINES[name]))


def attention(
    shape: tuple[int, ...], dtype: Any, mesh: Mesh
) -> tuple[Callable[..., Any], list[Any]]:
    """A function, and the shapes of its arguments with their shardings: pages on groups of chips
    and heads within a group, as the sampler has them."""
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


LORA = LoraSettings(16, 32.0, lora.TARGETS)
PASS = Pass(
    rows=64, pages=(256, 256), prompt_pages=256, columns=65, readers=3, size=128, adapters=3
)


def sampling(build: Callable[..., Any], mesh: Mesh, layers: int) -> Any:
    """The sampler's own program, lowered, in bfloat16 on layers of Llama-3.1-8B's sizes (a small
    vocabulary), three adapters stacked: 64 rows, 256 pages a shard."""
    config = LlamaConfig(4096, 4096, 14336, layers, 32, 8, 128, 8192, 1e-5, Rope(500000.0))
    return build(jnp.bfloat16, LORA, mesh, PASS)(config)


def training(mesh: Mesh, layers: int) -> Any:
    """An optimiser step, lowered, in bfloat16 on layers and a vocabulary of 32k: two rows of 1,024
    tokens."""
    config = LlamaConfig(32768, 1024, 2816, layers, 8, 4, 128, 8192, 1e-5, Rope(500000.0))
    chosen = parse(gsm8k().to_dict()).phases["sft"]
    packed = Packed(1024, 512, 4, 1)
    return programs.train(
        jnp.bfloat16, LORA, mesh, PHASES["sft"], chosen, packed, SampleSettings()
    )(config)


LOWERED: dict[str, Callable[[Mesh, int], Any]] = {
    "sampler decode": partial(sampling, programs.decode),
    "sampler prefill": partial(sampling, programs.prefill),
    "training": training,
}


@lru_cache
def compiled(name: str, program: str, effort: float = 0.0) -> str:
    """The optimised program of one chip, as text; with an effort of -1 the compiler saves itself
    what costs it time, and a layer is enough where its attention is part of the program."""
    mesh = machine(name)
    if program in LOWERED:
        options = {"exec_time_optimization_effort": effort}
        layers = 1 if effort and program != "sampler prefill" else 2
        return LOWERED[program](mesh, layers).compile(compiler_options=options).as_text()
    shape, dtype = ATTENTION[program]
    function, args = attention(shape, dtype, mesh)
    return jax.jit(function).lower(*args).compile().as_text()


# The large programs take minutes each with all effort.
LARGE = pytest.mark.parametrize(
    ("name", "effort"),
    [("v5e", -1.0), *(pytest.param(name, 0.0, marks=pytest.mark.slow) for name in MACHINES)],
)


@pytest.mark.parametrize("program", ATTENTION)
@pytest.mark.parametrize("name", MACHINES)
def test_an_attention_compiles_with_its_kernel(name: str, program: str):
    assert 'custom_call_target="tpu_custom_call"' in compiled(name, program)


@pytest.mark.parametrize("program", ["sampler decode", "sampler prefill"])
@LARGE
def test_a_program_compiles_with_its_kernel(name: str, effort: float, program: str):
    assert 'custom_call_target="tpu_custom_call"' in compiled(name, program, effort)


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


@LARGE
def test_a_decoding_step_copies_no_pool(name: str, effort: float):
    """Written element by element, the pool went into another layout and back at every step."""
    text = compiled(name, "sampler decode", effort)
    loop = [line for line in text.splitlines() if "while/body" in line]
    assert loop
    assert not [x for x in loop if re.search(r" = \(?bf16\[(1,)?256,4,128,128\]\S* copy", x)]


@LARGE
def test_the_training_step_compiles_and_holds_no_logits_of_a_row(name: str, effort: float):
    """512 predictions by a share of 16,384 of the vocabulary, in whatever type."""
    assert not re.search(r"\[(\d+,)*512,(16384|32768)\]", compiled(name, "training", effort))
