"""The kernels against the portable attention, that against its definition, and merging against a
plain softmax. No TPU or GPU is needed: the kernels run in Pallas's interpreters."""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from malt_jax.models import kernels
from malt_jax.models.attention import (
    Partial,
    implementation,
    join,
    normalised,
    nothing,
    partial_attention,
    writers,
)
from malt_jax.models.kernels import MASKED
from malt_jax.sampler.programs import options

KERNELS = {
    "cpu": implementation("cpu"),
    # Its interpreter keeps buffers apart and fills what was never written with NaN.
    "tpu": partial(kernels.tpu, interpret=pltpu.InterpretParams()),
    "gpu": partial(kernels.gpu, interpret=True),
}
jit_cpu = partial(jax.jit, compiler_options=options("cpu"))  # as the sampler compiles
FLOAT32, BFLOAT16 = jnp.float32, jnp.bfloat16
# W, K, M, H, T
SHAPES = [
    ((5, 8, 12, 128, 128), BFLOAT16),  # Llama-3.1-8B, three readers a page
    ((2, 2, 256, 128, 128), BFLOAT16),  # a prompt of 64 tokens to prefill
    ((3, 1, 200, 64, 128), FLOAT32),  # more queries than a block holds, and no multiple of it
    ((16, 3, 9, 64, 128), FLOAT32),  # SmolLM2, more than one block of pages
    ((16, 3, 9, 64, 128), BFLOAT16),
    ((21, 3, 3, 64, 64), FLOAT32),  # no multiple of the pages that a CPU takes at a time
    ((7, 1, 5, 80, 64), FLOAT32),
    ((1, 1, 1, 64, 64), BFLOAT16),
]


def inputs(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> list[jax.Array]:
    """q, k, v and seen; queries that see nothing, a part and all of a page, and pages that nobody
    sees in a row at both ends."""
    pages, heads, queries, size, tokens = shape
    rng = np.random.default_rng(seed)
    seen = rng.integers(0, tokens + 1, (pages, queries))
    seen[rng.random(seen.shape) < 0.1] = 0
    seen[rng.random(seen.shape) < 0.1] = tokens
    if pages > 2:
        seen[0] = seen[-pages // 3 :] = 0
    arrays = [
        rng.standard_normal((pages, heads, queries, size)) * size**-0.5,
        rng.standard_normal((pages, heads, size, tokens)),
        rng.standard_normal((pages, heads, tokens, size)),
    ]
    return [*(jnp.asarray(x, dtype) for x in arrays), jnp.asarray(seen, jnp.int32)]


def assert_agree(got: Any, wanted: Any, dtype: Any) -> None:
    """In bfloat16 a weight may round to the neighbour: 2**-8 of it, times a value of up to 4."""
    close = 2e-5 if dtype == FLOAT32 else 2e-2
    for name, ours, other in zip(Partial._fields, got, wanted, strict=True):
        assert ours.dtype == FLOAT32
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=close, err_msg=name)


# Compiling for the TPU's interpreter takes seconds a shape: what these two hold another one does.
SLOW = {("tpu", SHAPES[4]), ("tpu", SHAPES[5])}
PAIRS = [
    pytest.param(kernel, *case, marks=[pytest.mark.slow] if (kernel, case) in SLOW else [])
    for case in SHAPES
    for kernel in KERNELS
]


@pytest.mark.parametrize(("kernel", "shape", "dtype"), PAIRS)
def test_a_kernel_agrees_with_the_portable_one(kernel: str, shape: tuple[int, ...], dtype: Any):
    args = inputs(shape, dtype)
    assert_agree(jax.jit(KERNELS[kernel])(*args), jax.jit(partial_attention)(*args), dtype)


@pytest.mark.parametrize("kernel", ["tpu", "gpu"])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_a_mask_off_by_one_is_noticed(kernel: str, dtype: Any, monkeypatch: pytest.MonkeyPatch):
    attend = kernels._attend
    monkeypatch.setattr(kernels, "_attend", lambda q, k, v, seen: attend(q, k, v, seen + 1))
    args = inputs((4, 2, 12, 64, 128), dtype)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_agree(KERNELS[kernel](*args), partial_attention(*args), dtype)


@pytest.mark.parametrize(
    "attend", [partial_attention, *KERNELS.values()], ids=["portable", *KERNELS]
)
def test_what_is_not_seen_changes_no_bit(attend: Any):
    q, k, v, seen = inputs((4, 2, 3, 64, 128), FLOAT32)
    attend = jax.jit(attend)
    hidden = jnp.arange(128) >= seen.max(1)[:, None]  # [W, T], places nobody has written yet
    assert hidden.any()
    other_k = jnp.where(hidden[:, None, None], 1e6, k)
    other_v = jnp.where(hidden[:, None, :, None], -1e6, v)
    for ours, other in zip(attend(q, k, v, seen), attend(q, other_k, other_v, seen), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_on_a_cpu_a_page_has_the_same_bits_in_a_pool_of_any_length():
    """Pools grow while a row decodes; its pages must not be summed in another order for it."""
    attend = jit_cpu(implementation("cpu"))
    q, k, v, seen = inputs((21, 3, 9, 64, 64), FLOAT32)
    for many in (2, 8, 9, 16, 20):
        fewer = attend(*(x[:many] for x in (q, k, v, seen)))
        for ours, other in zip(fewer, attend(q, k, v, seen), strict=True):
            np.testing.assert_array_equal(ours, other[:many])


@pytest.mark.parametrize("used", [0, 1, 8, 9, 20])
def test_a_cpu_reads_no_page_past_the_last_that_is_seen(used: int):
    """Of a pool of 64 pages a step used to read all, for 15 rows with 25 pages: 2 of 5 of its
    time. A page that is read shows here, by a value that no weight of zero takes away."""
    q, k, v, _ = inputs((64, 2, 3, 8, 16), FLOAT32)
    seen = jnp.where(jnp.arange(64) < used, 16, 0)[:, None] * jnp.ones((1, 3), jnp.int32)
    read = -(-used // 8) * 8
    v = jnp.where((jnp.arange(64) < read)[:, None, None, None], v, jnp.nan)
    parts = jit_cpu(implementation("cpu"))(q, k, v, seen)
    wanted = jit_cpu(partial_attention)(q, k, jnp.nan_to_num(v), seen)
    jax.tree.map(np.testing.assert_array_equal, parts, wanted)
    assert np.isnan(partial_attention(q, k, v, seen).out).any()


def test_the_portable_one_is_its_definition():
    q, k, v, seen = inputs((5, 2, 4, 8, 16), FLOAT32)
    out, top, total = (np.asarray(x) for x in partial_attention(q, k, v, seen))
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    for w, h, m in np.ndindex(*top.shape):
        n = int(seen[w, m])
        scores = q[w, h, m] @ k[w, h, :, :n]
        highest = scores.max(initial=MASKED)
        weights = np.exp(scores - highest)
        np.testing.assert_allclose(top[w, h, m], highest, rtol=1e-5)
        np.testing.assert_allclose(total[w, h, m], weights.sum(), rtol=1e-5)
        np.testing.assert_allclose(out[w, h, m], weights @ v[w, h, :n], rtol=1e-4, atol=1e-5)
    assert (np.asarray(seen) == 0).any()


def joined(parts: Partial, order: Sequence[int]) -> Partial:
    pages = [Partial(*(x[w] for x in parts)) for w in order]
    return reduce(join, pages, nothing(pages[0].out.shape))


def test_joined_pages_are_one_softmax():
    """Pages of 16 tokens in a row, of which query m sees the first `lengths[m]`."""
    lengths = np.array([0, 1, 16, 17, 40, 64])
    q, k, v, _ = inputs((4, 2, len(lengths), 8, 16), FLOAT32)
    q = jnp.broadcast_to(q[:1] * 20, q.shape)  # so that one token can weigh nearly everything
    seen = jnp.clip(lengths[None] - 16 * jnp.arange(4)[:, None], 0, 16)
    merged = np.asarray(normalised(joined(partial_attention(q, k, v, seen), range(4))))
    keys = np.concatenate(np.asarray(k, np.float64), -1)  # [K, H, 4 T]
    values = np.concatenate(np.asarray(v, np.float64), 1)
    for h, m in np.ndindex(2, len(lengths)):
        scores = np.asarray(q, np.float64)[0, h, m] @ keys[h, :, : lengths[m]]
        weights = np.exp(scores - scores.max(initial=MASKED))
        wanted = weights @ values[h, : lengths[m]] / max(weights.sum(), 1e-30)
        np.testing.assert_allclose(merged[h, m], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(merged[:, 0], 0.0)


def test_a_page_that_is_not_seen_changes_no_bit():
    q, k, v, seen = inputs((4, 2, 3, 8, 16), FLOAT32)
    parts = partial_attention(q, k, v, seen.at[2].set(0))
    assert (seen.at[2].set(0)[jnp.array([0, 1, 3])] > 0).any()
    with_it, without = joined(parts, [0, 1, 2, 3]), joined(parts, [0, 1, 3])
    jax.tree.map(np.testing.assert_array_equal, with_it, without)


@pytest.mark.parametrize(
    ("platform", "call"),
    [("tpu", "tpu_custom_call"), ("gpu", "triton"), ("cuda", "triton")],
)
def test_the_platform_chooses_the_implementation(platform: str, call: str):
    """Lowering for a platform needs no device, and refuses what its dialect cannot say."""
    attend = implementation(platform)
    if call == "triton" and jax.__version_info__ >= (0, 11):
        pytest.importorskip("jax_cuda13_plugin", reason="from jax 0.11 on, lowering compiles")
    for shape, dtype in SHAPES:
        structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(shape, dtype)]
        target = "tpu" if platform == "tpu" else "cuda"
        text = jax.jit(attend).trace(*structs).lower(lowering_platforms=(target,)).as_text()
        assert call in text
        result = jax.eval_shape(attend, *structs)
        assert isinstance(result, Partial)
        assert result == jax.eval_shape(partial_attention, *structs)


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="no attention for platform 'abacus'"):
        implementation("abacus")


@pytest.mark.parametrize("which", [0, 1], ids=["keys", "values"])
def test_writing_whole_pages_is_writing_elements(which: int):
    """Rows on pages of their own; one of them on no page."""
    rng = np.random.default_rng(0)
    pool = jnp.asarray(rng.normal(size=(6, 2, 8, 16) if which == 0 else (6, 2, 16, 8)))
    new, page = jnp.asarray(rng.normal(size=(4, 2, 8))), jnp.array([4, 0, 6, 3])
    place = jnp.array([0, 15, 3, 7])
    elements, pages = (
        writers(platform)[which](pool, new, page, place) for platform in ("cpu", "tpu")
    )
    np.testing.assert_array_equal(elements, pages)
    changed = np.argwhere(np.any(np.asarray(elements != pool), (1, 2, 3))).ravel()
    np.testing.assert_array_equal(changed, [0, 3, 4])
    written = elements[0, :, :, 15] if which == 0 else elements[0, :, 15]
    np.testing.assert_array_equal(written, new[1])
