"""A Llama, or a family like it (`models.config`), in flax.nnx. Parameters leave this file as plain
pytrees; forward passes are pure functions of them.

One block serves the full pass and the passes over a paged cache (`models.paged`): what differs is
only how queries meet keys, so attention is a callable handed down.

Letters in shapes: B batch, T tokens, D hidden, N query heads, K key/value heads, H head size, F
inner size, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.models.lora import Adapter, Params, stacked_product, thin_product
from malt_jax.models.products import product
from malt_jax.runtime.mesh import constrain

KV = tuple[Array, Array]
Attend = Callable[[Array, Array, Array], tuple[Array, KV]]
"""q [B, T, N, H], k and v [B, T, K, H] -> attended [B, T, N, H] and the keys and values to keep."""
PRODUCT = "product"
"""What policies of `jax.checkpoint` call the outputs of the matrix products."""
ROWS = ("batch", None, None)
"""The logical axes of hidden states [B, T, D]: whole on the devices that hold the row."""
RematPolicy = Callable[..., Any]
"""One of `jax.checkpoint_policies`."""
Scale = float | Array
"""What an adapter's low-rank part is multiplied with: alpha / r, or `lora.gates` [B, 1, r]."""

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
_MASKED = -1e30  # finite: a padded query that sees no key must not turn into NaN


class Linear(nnx.Module):
    def __init__(self, fan_in: int, fan_out: int, bias: bool, dtype: Any, rngs: nnx.Rngs):
        # [out, in], as on disk: in this layout XLA's CPU matmul sums in the same order however many
        # rows there are, so that a row's bits do not depend on its company.
        self.kernel = nnx.Param(_normal(rngs, (fan_in, fan_out), dtype).T)
        self.bias = nnx.Param(jnp.zeros((fan_out,), dtype)) if bias else None

    def __call__(self, x: Array, lora: dict[str, Array] | None, scale: Scale) -> Array:
        y = product(x, self.kernel[...])
        if self.bias is not None:
            y = y + self.bias[...]
        if lora is not None and isinstance(scale, Array):
            y = y + stacked_product(x, lora, scale)
        elif lora is not None:
            low = checkpoint_name(thin_product(x, lora["a"].astype(x.dtype)), PRODUCT)
            y = y + thin_product(scale * low, lora["b"].astype(x.dtype))
        return checkpoint_name(y, PRODUCT)


class Norm(nnx.Module):
    def __init__(self, size: int, eps: float, dtype: Any):
        self.scale = nnx.Param(jnp.ones((size,), dtype))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + self.eps)
        return self.scale[...] * normed.astype(x.dtype)


class Block(nnx.Module):
    def __init__(self, config: LlamaConfig, dtype: Any, rngs: nnx.Rngs):
        c, bias, mlp = config, config.qkv_bias, config.mlp_bias
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        self.config = config
        self.attn_norm = Norm(c.hidden_size, c.norm_eps, dtype)
        self.mlp_norm = Norm(c.hidden_size, c.norm_eps, dtype)
        self.q = Linear(c.hidden_size, queries, bias, dtype, rngs)
        self.k = Linear(c.hidden_size, keys, bias, dtype, rngs)
        self.v = Linear(c.hidden_size, keys, bias, dtype, rngs)
        self.o = Linear(queries, c.hidden_size, c.attention_bias, dtype, rngs)
        self.q_norm = Norm(c.head_dim, c.norm_eps, dtype) if c.qk_norm else None
        self.k_norm = Norm(c.head_dim, c.norm_eps, dtype) if c.qk_norm else None
        self.gate = Linear(c.hidden_size, c.intermediate_size, mlp, dtype, rngs)
        self.up = Linear(c.hidden_size, c.intermediate_size, mlp, dtype, rngs)
        self.down = Linear(c.intermediate_size, c.hidden_size, mlp, dtype, rngs)

    def __call__(
        self,
        x_BTD: Array,
        rope: tuple[Array, Array],
        attend: Attend,
        lora: dict[str, dict[str, Array]],
        scale: Scale,
    ) -> tuple[Array, KV]:
        c, (batch, length, _) = self.config, x_BTD.shape
        h = self.attn_norm(x_BTD)
        q = self.q(h, lora.get("q"), scale).reshape(batch, length, c.num_heads, c.head_dim)
        k = self.k(h, lora.get("k"), scale).reshape(batch, length, c.num_kv_heads, c.head_dim)
        v = self.v(h, lora.get("v"), scale).reshape(batch, length, c.num_kv_heads, c.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        attended, kept = attend(_rotate(q, rope), _rotate(k, rope), v)
        x_BTD = x_BTD + self.o(attended.reshape(batch, length, -1), lora.get("o"), scale)
        x_BTD = constrain(x_BTD, ROWS)
        h = self.mlp_norm(x_BTD)
        gated = _ACTIVATIONS[c.activation](self.gate(h, lora.get("gate"), scale))
        inner = gated * self.up(h, lora.get("up"), scale)
        return constrain(x_BTD + self.down(inner, lora.get("down"), scale), ROWS), kept


class Llama(nnx.Module):
    def __init__(self, config: LlamaConfig, dtype: Any, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Param(_normal(rngs, (config.vocab_size, config.hidden_size), dtype))
        self.layers = nnx.List([Block(config, dtype, rngs) for _ in range(config.num_layers)])
        self.norm = Norm(config.hidden_size, config.norm_eps, dtype)
        head = (config.hidden_size, config.vocab_size)
        self.head = None if config.tied else nnx.Param(_normal(rngs, head, dtype).T)

    def __call__(
        self,
        tokens_BT: Array,
        positions_BT: Array,
        attends: Sequence[Attend],
        adapter: Adapter | None,
        scale: Scale,
        remat_policy: RematPolicy | None,
    ) -> tuple[Array, list[KV]]:
        x = constrain(self.embed[...][tokens_BT], ROWS)
        rope = rope_angles(self.config.rope, self.config.head_dim, positions_BT, x.dtype)
        kept = []
        for i, (block, attend) in enumerate(zip(self.layers, attends, strict=True)):
            lora = {} if adapter is None else adapter.layers.get(i, {})

            def run(x: Array, lora: Any, block: Block = block, attend: Attend = attend) -> Any:
                return block(x, rope, attend, lora, scale)

            kept_run = jax.checkpoint(run, policy=remat_policy) if remat_policy else run
            x, kv = kept_run(x, lora)
            kept.append(kv)
        return self.norm(x), kept


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], dtype: Any) -> Array:
    return 0.02 * jax.random.normal(rngs.params(), shape, dtype)


@lru_cache
def _graph(config: LlamaConfig, dtype: Any) -> tuple[Any, Params]:
    """The module's structure and its parameters' shapes; nothing is allocated."""
    model = nnx.eval_shape(lambda: Llama(config, dtype, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def param_shapes(config: LlamaConfig, dtype: Any = jnp.float32) -> Params:
    """The parameter tree as `jax.ShapeDtypeStruct`s: what a loader has to fill."""
    return _graph(config, jnp.dtype(dtype))[1]


def init(config: LlamaConfig, key: Array, dtype: Any = jnp.float32) -> Params:
    """Random parameters (normal, 0.02), for tests and for pretraining small models."""
    _, state = nnx.split(Llama(config, dtype, nnx.Rngs(params=key)))
    return nnx.to_pure_dict(state)


def run(
    config: LlamaConfig,
    params: Params,
    tokens_BT: Array,
    positions_BT: Array,
    attends: Sequence[Attend],
    adapter: Adapter | None,
    gates: Array | None = None,
    *,
    remat_policy: RematPolicy | None = None,
) -> tuple[Array, list[KV]]:
    """The layers, each with its own way of meeting keys: normed hidden states [B, T, D] and what
    each `attend` keeps.

    With `gates` float32[B, 1, r] each row has its own share of a stacked adapter (`lora.stack`).
    A `remat_policy` says what each block keeps for its backward pass; without one it keeps all.
    """
    module = nnx.merge(_graph(config, params["embed"].dtype)[0], params)
    scale: Scale = 0.0 if adapter is None else adapter.scale
    if gates is not None:
        scale = gates.astype(params["embed"].dtype)
    return module(tokens_BT, positions_BT, attends, adapter, scale, remat_policy)


def forward(
    config: LlamaConfig,
    params: Params,
    tokens_BT: Array,
    mask_BT: Array,
    adapter: Adapter | None = None,
) -> tuple[Array, list[KV]]:
    """The full causal pass over padded rows (padding on either side; `mask` is true on real
    tokens).

    Returns the normed hidden states [B, T, D] and per layer keys and values [B, K, T, H].
    """
    positions = jnp.maximum(jnp.cumsum(mask_BT, -1) - 1, 0)
    attends = [full_attention(mask_BT)] * config.num_layers
    return run(config, params, tokens_BT, positions, attends, adapter)


def unembed(config: LlamaConfig, params: Params, hidden: Array) -> Array:
    """Hidden states [..., D] to float32 logits [..., V]."""
    head = params["embed" if config.tied else "head"]
    return product(hidden, head, jnp.float32)


def full_attention(mask_BT: Array) -> Attend:
    """Causal attention of a row to itself; keeps keys and values head-major."""

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, KV]:
        batch, length, heads, size = q.shape
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        q = q.reshape(batch, length, k.shape[1], -1, size).transpose(0, 2, 3, 1, 4)
        scores = jnp.einsum("bkgth,bksh->bkgts", q, k, preferred_element_type=jnp.float32)
        causal = jnp.tril(jnp.ones((length, length), bool))
        seen = causal[None, None, None] & mask_BT[:, None, None, None, :].astype(bool)
        weights = jax.nn.softmax(jnp.where(seen, scores * size**-0.5, _MASKED), -1)
        out = jnp.einsum("bkgts,bksh->btkgh", weights.astype(v.dtype), v)
        return out.reshape(batch, length, heads, size), (k, v)

    return attend


def rope_frequencies(rope: Rope, head_dim: int) -> Array:
    """Radians a position float32[H/2], scaled as the config says."""
    freqs = rope.theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if rope.kind == "linear":
        return freqs / rope.factor
    if rope.kind == "default":
        return freqs
    # Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, the band between
    # interpolated.
    turns = rope.original_context * freqs / (2 * math.pi)
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = jnp.clip(keep, 0.0, 1.0)
    return freqs * (keep + (1.0 - keep) / rope.factor)


def rope_angles(rope: Rope, head_dim: int, positions: Array, dtype: Any) -> tuple[Array, Array]:
    """cos and sin [..., 1, H/2] at integer positions [...], computed in float32 (arXiv
    2104.09864)."""
    angles = positions[..., None, None].astype(jnp.float32) * rope_frequencies(rope, head_dim)
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def _rotate(x: Array, rope: tuple[Array, Array]) -> Array:
    cos, sin = rope
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
