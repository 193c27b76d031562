"""The pools of pages on the devices, as large as what is in use, and the copies between them."""

import operator
from collections.abc import Sequence

import numpy as np

from malt_jax.models import kv_cache
from malt_jax.runtime import mesh as meshes
from malt_jax.sampler import schedule
from malt_jax.sampler.programs import Fixed, Programs
from malt_jax.sampler.shapes import bucket
from malt_jax.sampler.spec import Memory, Spec

Pairs = Sequence[Sequence[tuple[int, int]]]
"""(from, to) pages of each shard."""


class Pools:
    """`prompts` holds what prefill computes and the prefix cache keeps; `shared` the prompts of the
    rows that decode, and `decoded` what these drew."""

    def __init__(self, spec: Spec, memory: Memory, fixed: Fixed, programs: Programs, least: int):
        self._spec, self._memory, self._fixed, self._programs = spec, memory, fixed, programs
        self._least = least
        self.prompts = self._empty(memory.prompts)
        self.shared, self.decoded = (self._empty(pages) for pages in self._sizes(1, 1))

    @property
    def lengths(self) -> tuple[int, int]:
        """Pages of each shard's part of `shared` and of `decoded`."""
        return _length(self.shared), _length(self.decoded)

    def copy_prompts(self, pairs: Pairs) -> None:
        """Copies pages of the prompt pool to other pages of it."""
        self.prompts = self._programs.copy(self._fixed, None, self.prompts, self._moves(pairs))

    def share(self, pairs: Pairs) -> None:
        """Copies pages of the prompt pool to `shared`."""
        moves = self._moves(pairs)
        self.shared = self._programs.copy(self._fixed, self.prompts, self.shared, moves)

    def fit(self, shards: Sequence[schedule.Shard], *, shrink: bool = False) -> None:
        """Makes the decode pools hold the pages in use; they are read whole at every step."""
        held = self.lengths
        both = [shard.shared for shard in shards], [shard.decoded for shard in shards]
        tops = [max(pages.top for pages in pool) for pool in both]
        used = [max(pages.used for pages in pool) for pool in both]
        least, grown = (
            self._sizes(shared, decoded) for shared, decoded in (used, map(max, tops, held))
        )
        enough = all(map(operator.le, tops, held))
        if enough and not (shrink and any(2 * a <= b for a, b in zip(least, held, strict=True))):
            return
        if not enough and all(map(operator.le, tops, grown)):
            sizes, ids = grown, [[range(n)] * len(shards) for n in held]
        else:
            compacted = [shard.compact() for shard in shards]
            sizes, ids = least, list(map(list, zip(*compacted, strict=True)))
        self._resize(self.shared, sizes[0], ids[0])
        self._resize(self.decoded, sizes[1], ids[1])

    def _sizes(self, shared: int, decoded: int) -> tuple[int, int]:
        return schedule.sizes(shared, decoded, self._memory.decode, self._least)

    def _resize(self, pool: kv_cache.Pool, pages: int, ids: Sequence[Sequence[int]]) -> None:
        old = np.zeros((len(ids), pages), np.int32)
        for e, of_shard in enumerate(ids):
            old[e, : len(of_shard)] = of_shard[:pages]
        placed = meshes.put_batch(self._spec.mesh, old)
        for i, layer in enumerate(pool):  # one at a time: never two whole pools
            pool[i] = self._programs.resized(layer, placed)

    def _moves(self, pairs: Pairs) -> kv_cache.Moves:
        """The pairs of all shards, padded to a bucket."""
        many = np.array(list(map(len, pairs)), np.int32)
        source, to = np.zeros((2, len(pairs), bucket(many.max())), np.int32)
        for e, moved in enumerate(pairs):
            if moved:
                source[e, : len(moved)], to[e, : len(moved)] = zip(*moved, strict=True)
        moves = kv_cache.Moves(source, to, many)
        placed: kv_cache.Moves = meshes.put_batch(self._spec.mesh, moves)
        return placed

    def _empty(self, pages: int) -> kv_cache.Pool:
        spec = self._spec
        dtype = spec.params["embed"].dtype
        return kv_cache.empty_pool(spec.config, spec.mesh, pages, spec.page_size, dtype)


def _length(pool: kv_cache.Pool) -> int:
    return pool[0][0].shape[1]
