"""This machine's limits: the best float32 matmul and the best read, on all cores.

python -m benchmarks.peers.hardware
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.serving import serve

SIZES = (1024, 2048, 4096)
READ_BYTES = 1 << 30  # far beyond any cache
REPEATS = 5


def best(run: Callable[[], Any]) -> float:
    """The least seconds of several runs, after one that does not count."""
    run()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def flops() -> float:
    """FLOP/s of a float32 matmul, the better of numpy's BLAS and XLA."""
    product = jax.jit(jnp.matmul)

    def rate(size: int) -> float:
        a, b = np.random.default_rng(0).random((2, size, size), np.float32)
        x, y = jax.device_put((a, b))
        seconds = min(best(lambda: a @ b), best(lambda: product(x, y).block_until_ready()))
        return 2 * size**3 / seconds

    return max(map(rate, SIZES))


def bandwidth() -> float:
    """Bytes/s read, the better of one numpy thread a core and XLA."""
    parts = np.ones((os.cpu_count() or 1, READ_BYTES // 4 // (os.cpu_count() or 1)), np.float32)
    with ThreadPoolExecutor(len(parts)) as pool:
        threads = best(lambda: list(pool.map(np.max, parts)))
    on_device, largest = jnp.asarray(parts), jax.jit(jnp.max)
    return parts.nbytes / min(threads, best(lambda: largest(on_device).block_until_ready()))


if __name__ == "__main__":
    serve(lambda request: {"flops": flops(), "bandwidth": bandwidth()})
