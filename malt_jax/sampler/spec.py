"""What a sampler is made of, and what follows for its memory and the shapes of its programs."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jax.sharding import Mesh

from malt_jax.models import kv_cache
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Params
from malt_jax.runtime import hosts
from malt_jax.sampler.shapes import bucket

_LEAST_ROWS = 16
"""The narrowest decoding pass: below it a step costs what reading the weights does."""


@dataclass(frozen=True)
class Spec:
    """A model on its mesh, and how many sequences it may sample at a time.

    `siblings` children of a prompt read its pages together (more are split); `kv_gib` is the most
    memory the KV cache may take on a device, 0 for a share of what is free.
    """

    config: LlamaConfig
    params: Params
    mesh: Mesh
    rows: int
    stop_ids: tuple[int, ...]
    pad_id: int
    siblings: int = 3
    kv_gib: float = 0.0

    @property
    def platform(self) -> str:
        """ "cpu", "gpu" or "tpu"."""
        return self.mesh.devices.flat[0].platform

    @property
    def page_size(self) -> int:
        """Tokens of a page: what the platform's matrix units like best."""
        return 64 if self.platform == "cpu" else 128

    @property
    def rows_a_shard(self) -> int:
        """Rows of each shard."""
        return -(-self.rows // kv_cache.shards_of(self.mesh))


@dataclass(frozen=True)
class Memory:
    """What the KV cache may take, in pages of each shard; fixed when a run begins."""

    prompts: int  # the prompt pool: what prefill writes and the prefix cache keeps
    decode: int  # the most that the decode pool may grow to
    page_bytes: int  # on each device
    granted: float  # bytes on each device

    def check(self, spec: Spec, prompt: int, max_new_tokens: int, children: int) -> None:
        """Raises ValueError if a request of these lengths could not run alone."""
        if prompt + max_new_tokens > spec.config.context:
            raise ValueError(
                f"a prompt of {prompt} tokens and {max_new_tokens} new ones do "
                f"not fit the model's context of {spec.config.context}; lower "
                "config.data.max_chars or config.roles.*.max_new_tokens"
            )
        pages, decoded = pages_needed(prompt, max_new_tokens, spec.page_size)
        wanted = -(-children // spec.siblings) * pages + children * decoded
        if pages > self.prompts or wanted > self.decode:
            least = max(4 * pages, -(-4 * wanted // 3)) * self.page_bytes / 2**30
            raise ValueError(
                f"config.sample.kv_gib: a prompt of {prompt} tokens with {children} children of "
                f"{max_new_tokens} needs {least:.2g} GiB of KV cache on each device and "
                f"{self.granted / 2**30:.2g} are granted; raise it, or lower "
                "config.roles.*.max_new_tokens"
            )


def memory(spec: Spec) -> Memory:
    """Splits the budget: up to a quarter for prompts, which are shared, the rest for decoding."""
    size, granted = spec.page_size, _granted(spec)
    page_bytes = kv_cache.page_bytes(spec.config, spec.mesh, size, spec.params["embed"].dtype)
    pages = int(granted // page_bytes)
    useful = max(2 * spec.rows_a_shard, -(-spec.config.context // size))
    prompts = min(max(pages // 4, 1), useful)
    return Memory(prompts, pages - prompts, page_bytes, granted)


def _granted(spec: Spec) -> float:
    if spec.kv_gib:
        return spec.kv_gib * 2**30
    stats = spec.mesh.devices.flat[0].memory_stats()
    if stats and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats["bytes_in_use"]
    else:
        # Simulated devices share the host's memory.
        free = available_bytes() // len(spec.mesh.local_devices)
    return 0.6 * (hosts.least(free) if spec.mesh.is_multi_process else free)


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of the host's memory that a program can get. On Linux that is more than what is free:
    the file cache gives way, and after some reading it holds nearly all."""
    if meminfo.exists():
        available = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
        if available:
            return 1024 * int(available[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pages_needed(prompt: int, max_new_tokens: int, size: int) -> tuple[int, int]:
    """Pages of a prompt without its last token, and the most that one child may fill."""
    return -(-(prompt - 1) // size), -(-max_new_tokens // size)


def row_sizes(rows: int) -> list[int]:
    """The widths of a decoding pass, in order: the buckets up to all rows. Never one: XLA's product
    of a single row sums in another order."""
    return sorted({max(2, min(bucket(n, _LEAST_ROWS), rows)) for n in range(1, rows + 1)})


def prefill_sizes(rows: int, width: int) -> list[int]:
    """Tiles of `width` tokens of a prefill pass: from 64 tokens to four times the rows."""
    sizes = [max(64 // width, 1)]
    while sizes[-1] * width < 4 * rows:
        sizes.append(sizes[-1] * 2)
    return sizes


def few(ladder: Sequence[int]) -> list[int]:
    """Of ascending sizes the first, those that are four times the one before or more, and the last:
    few programs, for requests that cannot wait until one is compiled."""
    kept = [ladder[0]]
    for size in ladder[1:]:
        if size >= 4 * kept[-1] or size == ladder[-1]:
            kept.append(size)
    return kept
