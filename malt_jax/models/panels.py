"""Weights in panels: how a decoding pass of few rows reads them on a CPU.

XLA's CPU matmul (YNNPACK) rewrites its right operand into blocks of 64 columns at every call, which
for a few dozen rows takes as long as the product. A batched product over panels of 64 columns, laid
out beforehand, needs no rewriting, and sums in the same order: the bits are those of
`x @ kernel.T`, whatever the number of rows.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Params

WIDTH = 64
"""Columns of a panel. Of wider ones the matmul sums parts, cut by the number of rows."""
_PARTS, _MOST = 3, 32  # at least so many parts, of at most so many panels
_LEAST = 2**16  # elements of a kernel; the copies of a smaller one's rows cost what they save


class Panels(NamedTuple):
    """A kernel [out, in] as panels [P, in, 64], in order.

    In several parts, because a product copies the rows once a panel: the copies of a few panels
    stay in the cache, and parts of a size share theirs.
    """

    parts: tuple[Array, ...]


def product(x: Array, kernel: Array | Panels, dtype: Any = None) -> Array:
    """x [..., in] times a kernel [out, in], transposed: [..., out], in `dtype` or their own."""
    if not isinstance(kernel, Panels):
        return jnp.einsum("...i,oi->...o", x, kernel, preferred_element_type=dtype)
    rows = x.reshape(-1, x.shape[-1])
    parts = [
        jnp.einsum("pri,pio->pro", jnp.broadcast_to(rows, (len(part), *rows.shape)), part)
        for part in kernel.parts
    ]
    return jnp.concatenate(parts).transpose(1, 0, 2).reshape(*x.shape[:-1], -1)


def in_panels(config: LlamaConfig, params: Params) -> tuple[LlamaConfig, Params]:
    """The model with its larger kernels in panels, where their columns fill them, and a head apart
    from the embedding. All else is shared with `params`."""

    def block(modules: Params) -> Params:
        return {
            name: {**leaves, "kernel": _cut(leaves["kernel"])} if "kernel" in leaves else leaves
            for name, leaves in modules.items()
        }

    layers = {i: block(modules) for i, modules in params["layers"].items()}
    head = _cut(params["embed" if config.tied else "head"])
    return replace(config, tied=False), {**params, "layers": layers, "head": head}


def _cut(kernel: Array) -> Array | Panels:
    fan_out, fan_in = kernel.shape
    if fan_out % WIDTH or kernel.size < _LEAST:
        return kernel
    panels = np.asarray(kernel).reshape(-1, WIDTH, fan_in).transpose(0, 2, 1)
    count = max(min(_PARTS, len(panels)), -(-len(panels) // _MOST))
    return Panels(tuple(jnp.asarray(part) for part in np.array_split(panels, count)))
