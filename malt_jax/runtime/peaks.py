"""What devices can do at most, in floating point operations a second."""

import time
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

# Dense FLOP/s of one device, (bfloat16, float32), by the start of `device_kind`. TPUs: "peak
# compute per chip" of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; jax multiplies float32 there in
# bfloat16 unless told otherwise. GPUs: NVIDIA's data sheets of A100, H100 and H200 without
# sparsity; jax multiplies float32 there in TF32.
_PEAKS = {
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),
    "TPU v5e": (197e12, 197e12),
    "TPU v5": (459e12, 459e12),
    "TPU v6": (918e12, 918e12),
    "NVIDIA A100": (312e12, 156e12),
    "NVIDIA H100 PCIe": (756e12, 378e12),
    "NVIDIA H100": (989e12, 494.5e12),
    "NVIDIA H200": (989e12, 494.5e12),
}


def peak(devices: Any, dtype: Any) -> float | None:
    """Most FLOP/s of `devices` (jax.Device, all of one kind) together for matrices of `dtype`; on
    CPU, of the machine, as a short product of matrices shows it. None for a kind not known."""
    device = devices[0]
    if device.platform == "cpu":
        return _measured(jnp.dtype(dtype).name)
    kinds = [kind for kind in _PEAKS if device.device_kind.startswith(kind)]
    if not kinds:
        return None
    half, single = _PEAKS[max(kinds, key=len)]
    return len(devices) * (half if jnp.dtype(dtype).itemsize == 2 else single)


@lru_cache
def _measured(dtype: str, size: int = 1024, seconds: float = 0.3) -> float:
    """The best of the products of two square matrices that fit in `seconds`."""
    x = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    end, best = time.perf_counter() + seconds, float("inf")
    while (started := time.perf_counter()) < end:
        multiply(x, x).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
