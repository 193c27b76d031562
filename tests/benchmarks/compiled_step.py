"""The memory and the traffic of a LoRA step of SFT, compiled for TPUs that are not here: ours
beside a plain one.

    python tests/benchmarks/compiled_step.py --topology=v5e:2x4 --layers=4 --json

The plain step is what a Llama's LoRA step looks like without this project: one jitted function of
optax and jnp, each layer under `jax.checkpoint`, attention with its scores, cross-entropy over all
logits, the same weights and adapters with the same shardings (fsdp over all chips), the same rows.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.gsm8k import get_config
from malt_jax.config import settings
from malt_jax.config.lora import LoraSettings
from malt_jax.learn.phases import PHASES
from malt_jax.models import llama, lora
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.plan import programs, topology
from malt_jax.plan.programs import Packed
from malt_jax.recipe import parse
from malt_jax.runtime import mesh as meshes

LLAMA_8B = LlamaConfig(128256, 4096, 14336, 32, 32, 8, 128, 131072, 1e-5, Rope(500000.0))
LORA = LoraSettings(16, 32.0, lora.TARGETS)


def plain(config: LlamaConfig, mesh: Any, length: int, tx: Any) -> Any:
    """The plain step, lowered: one row of `length` tokens a chip, half of them predicted."""

    def norm(x: Any, scale: Any) -> Any:
        y = x.astype(jnp.float32)
        y *= jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + config.norm_eps)
        return scale * y.astype(x.dtype)

    def layer(x: Any, weights: Any, adapter: Any, rope: Any, seen: Any) -> Any:
        def product(name: str, h: Any) -> Any:
            low = h @ adapter[name]["a"].astype(h.dtype) @ adapter[name]["b"].astype(h.dtype)
            return jnp.einsum("bti,oi->bto", h, weights[name]["kernel"]) + 2.0 * low

        batch, tokens, _ = x.shape
        h = norm(x, weights["attn_norm"]["scale"])
        q, k, v = (product(n, h).reshape(batch, tokens, -1, config.head_dim) for n in "qkv")
        q, k = rotated(q, rope), rotated(k, rope)
        k, v = (jnp.repeat(t, config.num_heads // config.num_kv_heads, 2) for t in (k, v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * config.head_dim**-0.5
        shares = jax.nn.softmax(jnp.where(seen, scores.astype(jnp.float32), -1e30))
        met = jnp.einsum("bhqk,bkhd->bqhd", shares.astype(v.dtype), v)
        x = x + product("o", met.reshape(batch, tokens, -1))
        h = norm(x, weights["mlp_norm"]["scale"])
        return rows(x + product("down", jax.nn.silu(product("gate", h)) * product("up", h)))

    def rotated(x: Any, rope: Any) -> Any:
        (cos, sin), (first, second) = rope, jnp.split(x, 2, -1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    def rows(x: Any) -> Any:
        return meshes.constrain(x, ("batch", None, None))

    def loss(adapter: Any, params: Any, tokens: Any, counted: Any) -> Any:
        places = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        x = rows(params["embed"][tokens])
        rope = llama.rope_angles(config.rope, config.head_dim, places, x.dtype)
        seen = jnp.tril(jnp.ones((length, length), bool))
        for i in range(config.num_layers):
            run = jax.checkpoint(layer)
            x = run(x, params["layers"][i], adapter.layers[i], rope, seen)
        logits = norm(x, params["norm"]["scale"]) @ params["head"].T
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1].astype(jnp.float32), tokens[:, 1:]
        )
        return jnp.sum(losses * counted[:, 1:]) / jnp.sum(counted)

    def step(params: Any, state: Any, tokens: Any, counted: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(state["adapter"], params, tokens, counted)
        updates, moments = tx.update(grads, state["opt_state"], state["adapter"])
        new = optax.apply_updates(state["adapter"], updates)
        return {"adapter": new, "opt_state": moments}, value

    adapter = programs.adapter(config, LORA, mesh)
    state = {
        "adapter": adapter,
        "opt_state": meshes.abstract(mesh, jax.eval_shape(tx.init, adapter)),
    }
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    shape = (mesh.size, length)
    sharding = meshes.sharding(mesh, shape, ("batch", None))
    tokens, counted = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for dtype in (jnp.int32, jnp.float32)
    )
    jitted = jax.jit(step, donate_argnums=1, out_shardings=(where, None))
    return jitted.lower(programs.weights(config, jnp.bfloat16, mesh), state, tokens, counted)


def main() -> None:
    """Compiles both and prints what each takes on a chip."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--topology", default="v5e:2x4")
    flags.add_argument("--layers", type=int, default=4)
    flags.add_argument("--length", type=int, default=1024)
    flags.add_argument("--remat", default="keep_inputs")
    flags.add_argument("--json", action="store_true")
    asked = flags.parse_args()
    devices = topology.devices(asked.topology)
    mesh = meshes.make(1, len(devices), 1, devices)
    config = replace(LLAMA_8B, num_layers=asked.layers)
    chosen = replace(parse(get_config().to_dict()).phases["sft"], remat=asked.remat)
    packed = Packed(asked.length, asked.length // 2, len(devices), 1)
    ours = programs.train(
        jnp.bfloat16, LORA, mesh, PHASES["sft"], chosen, packed, settings.SampleSettings()
    )(config)
    steps = {
        "malt_jax": programs.compiled(ours, packed.predictions // 128),
        "plain": programs.compiled(plain(config, mesh, asked.length, optax.adamw(1e-4))),
    }
    if asked.json:
        print(
            json.dumps(
                vars(asked) | {name: asdict(figures) for name, figures in steps.items()}, indent=2
            )
        )
        return
    for name, figures in steps.items():
        sent = {kind: f"{size / 2**30:.2f}" for kind, size in figures.traffic.items()}
        print(f"{name}: temporaries {figures.temporaries / 2**30:.2f} GiB, sent {sent} GiB")


if __name__ == "__main__":
    main()
