"""One run of the sampler: the loop that seats requests, prefills prompts and decodes."""

import math
import operator
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from malt_jax.models import kv_cache, lora, paged
from malt_jax.models.attention import implementation, writers
from malt_jax.models.lora import Adapter
from malt_jax.runtime import mesh as meshes
from malt_jax.runtime import process
from malt_jax.sampler import programs, schedule
from malt_jax.sampler.draw import Sampling
from malt_jax.sampler.prefixes import Place, Prefixes
from malt_jax.sampler.request import Completion, Request, Work
from malt_jax.sampler.shapes import bucket
from malt_jax.sampler.spec import Spec, memory, pages_needed, prefill_sizes, row_sizes
from malt_jax.sampler.widths import Widths, pause


class _Start(Enum):
    """What became of a request that was to start."""

    OPENED = auto()
    LATER = auto()  # what it would share is being computed
    NO_ROOM = auto()


class Session:
    """The state of one run: pools on the devices, rows and pages on the host."""

    def __init__(
        self, spec: Spec, adapters: Sequence[Adapter | None], sampling: Sampling, work: Work
    ):
        self.spec, self.sampling, self.work = spec, sampling, work
        self.size, self.rows = spec.page_size, spec.rows_a_shard
        self.columns = -(-spec.config.context // self.size) + 1
        self.fixed = programs.Fixed(
            spec.config,
            spec.mesh,
            implementation(spec.platform),
            writers(spec.platform),
            spec.stop_ids,
            spec.pad_id,
        )
        self.programs = programs.programs(spec.platform)
        self.adapter = lora.stack(adapters)
        self.gates = None if self.adapter is None else jnp.asarray(lora.gates(adapters))
        self.shapes = self.fixed, _shapes(self.adapter), _shapes(self.gates)
        self.alike = spec.mesh.is_multi_process  # hosts run the same programs: no clock decides
        self.memory = memory(spec)
        shards = range(kv_cache.shards_of(spec.mesh))
        self.prefixes = [Prefixes(self.memory.prompts, self.size) for _ in shards]
        self.shards = [schedule.Shard(self.memory.decode) for _ in shards]
        self.prompts = self._pool(self.memory.prompts)
        self.shared, self.decoded = (self._pool(pages) for pages in self._sizes(1, 1))
        self.held: deque[Request] = deque()
        self.opened: list[tuple[int, schedule.Group, Place]] = []
        self.parts: dict[Request, list[Completion | None]] = {}
        self.between = 0.0  # seconds of the host between passes, the last ones weighing more
        self.ended, self.drawn = 0, 0  # rows, and their tokens

    def run(self, take: Callable[[], Request | None]) -> Iterator[tuple[Request, list[Completion]]]:
        """See `Sampler.run`."""
        while True:
            begun = time.perf_counter()
            self._admit(take)
            self.between += (time.perf_counter() - begun - self.between) / 4
            if not any(shard.rows for shard in self.shards):
                return
            yield from self._decode()
            process.heed()  # between programs: what they computed is with the caller

    def _admit(self, take: Callable[[], Request | None]) -> None:
        """Seats children until the rows are full or there is no more to start. Prompts that share
        what others are about to compute wait for them, all together."""
        room = True
        while room:
            later: list[Request] = []
            while room and self._seats() > sum(len(request.keys) for request in later):
                request = self.held.popleft() if self.held else take()
                if request is None:
                    break
                start = self._open(request)
                room = start is not _Start.NO_ROOM
                if start is not _Start.OPENED:
                    later.append(request)
            self.held.extendleft(reversed(later))
            self._prefill()
            if not later:
                break

    def _seats(self) -> int:
        """Seats the children that wait, and says how many rows are left."""
        for shard in self.shards:
            shard.seat(self.rows)
        return sum(self.rows - len(shard.rows) for shard in self.shards)

    def _open(self, request: Request) -> "_Start":
        """Starts a request's groups on the shard that knows most of its prompt."""
        children, most = len(request.keys), self.spec.siblings
        self.memory.check(self.spec, len(request.prompt), request.max_new_tokens, children)
        groups = [list(range(i, min(i + most, children))) for i in range(0, children, most)]
        prompt, decoded = pages_needed(len(request.prompt), request.max_new_tokens, self.size)
        wanted = len(groups) * prompt + children * decoded
        open_to = [
            e
            for e, shard in enumerate(self.shards)
            if len(shard.rows) < self.rows and shard.room(wanted)
        ]
        if not open_to:
            return _Start.NO_ROOM
        cut = np.asarray(request.prompt[:-1], np.int32)
        known = {e: self.prefixes[e].shared(request.adapter, cut) for e in open_to}
        e = max(open_to, key=lambda e: (known[e], -len(self.shards[e].rows), -e))
        place = self.prefixes[e].place(request.adapter, cut)
        if place is None:
            assert self.opened, "the prompt pool holds any prompt that `check` lets through"
            return _Start.LATER
        self.work.prefilled += len(cut) - place.start
        self.work.reused += place.start
        self.parts[request] = [None] * children
        for i, members in enumerate(groups):
            group = self.shards[e].open(request, members, self.size)
            # The prompt's pages are computed for the first group and copied for the others.
            done = Place(place.pages, len(cut), None)
            self.opened.append((e, group, place if i == 0 else done))
        return _Start.OPENED

    def _prefill(self) -> None:
        """Computes what the opened groups' prompts need and moves their pages to the decode
        pool."""
        if not self.opened:
            return
        copies: list[list[tuple[int, int]]] = [[] for _ in self.shards]
        moves: list[list[tuple[int, int]]] = [[] for _ in self.shards]
        tiles: list[list[tuple[Request, int, Place]]] = [[] for _ in self.shards]
        width = self.size // 4
        for e, group, place in self.opened:
            if place.copy is not None:
                copies[e].append(place.copy)
            end = len(group.request.prompt) - 1
            tiles[e] += [(group.request, at, place) for at in range(place.start, end, width)]
            moves[e] += list(zip(place.pages, group.pages, strict=True))
        self.opened = []
        if any(copies):
            self.prompts = self.programs.copy(self.fixed, None, self.prompts, self._moves(copies))
        most = max(map(len, tiles))
        largest = prefill_sizes(self.rows, width)[-1]
        for begin in range(0, most, largest):
            self._prefill_pass([of_shard[begin : begin + largest] for of_shard in tiles], width)
        self._fit()
        self.shared = self.programs.copy(self.fixed, self.prompts, self.shared, self._moves(moves))
        for prefixes in self.prefixes:
            prefixes.settle()

    def _prefill_pass(self, tiles: Sequence[Sequence[tuple[Request, int, Place]]], q: int) -> None:
        most = max(map(len, tiles))
        ladder = prefill_sizes(self.rows, q)
        widths = self.programs.costs.setdefault(("prefill", *self.shapes), Widths())
        n = widths.choose(ladder, most, math.inf if self.alike else 1)
        shape = (len(tiles), n)
        tokens = np.full((*shape, q), self.spec.pad_id, np.int32)
        start, length, adapter = (np.zeros(shape, np.int32) for _ in range(3))
        table = np.full((*shape, self.columns), self.memory.prompts, np.int32)
        depth = 0
        for e, of_shard in enumerate(tiles):
            for b, (request, at, place) in enumerate(of_shard):
                part = request.prompt[at : min(at + q, len(request.prompt) - 1)]
                tokens[e, b, : len(part)] = part
                start[e, b], length[e, b], adapter[e, b] = at, len(part), request.adapter
                table[e, b, : len(place.pages)] = place.pages
                depth = max(depth, -(-(at + len(part)) // self.size))
        self.work.prefill_slots += tokens.size
        placed = self._put((paged.Tiles(tokens, start, length, table, np.int32(depth)), adapter))
        begun = time.perf_counter()
        self.prompts = self.programs.prefill(
            self.fixed, self.spec.params, self.adapter, self.gates, self.prompts, *placed
        )
        if not widths.seconds.get(n):  # its time is not known: once it is, nothing waits for it
            jax.block_until_ready(self.prompts)
            widths.ran(n, 1, time.perf_counter() - begun)
        widths.lose(n, ladder, most, 1)

    def _decode(self) -> Iterator[tuple[Request, list[Completion]]]:
        for shard in self.shards:
            shard.grow(programs.STEPS, self.size)
        busiest = max(len(shard.rows) for shard in self.shards)
        live = sum(len(shard.rows) for shard in self.shards)
        self._fit(shrink=self.spec.platform != "cpu")  # a CPU reads no page that is not in use
        pages = _length(self.shared), _length(self.decoded)
        widths = self.programs.costs.setdefault((*self.shapes, self.sampling, pages), Widths())
        left = max(row.left for shard in self.shards for row in shard.rows)
        ladder = row_sizes(self.rows)
        rows = widths.choose(ladder, busiest, math.inf if self.alike else left)
        plan = schedule.plan(self.shards, rows, pages, self.spec.siblings, self.columns, self.size)
        step = 0.0 if self.alike else widths.seconds.get(rows, 0.0)
        free = pause(rows, self.between, step, self.drawn / max(self.ended, 1))
        placed, begun = self._put(plan), time.perf_counter()
        drawn, self.decoded = self.programs.decode(
            self.fixed,
            self.spec.params,
            self.adapter,
            self.gates,
            self.shared,
            self.decoded,
            placed,
            np.int32(max(live - free, 0)),
            self.sampling,
        )
        with process.watched("decoding"):
            drawn = meshes.fetch(drawn)
        widths.ran(rows, int(drawn.steps), time.perf_counter() - begun)
        widths.lose(rows, ladder, busiest, int(drawn.steps))
        self.work.steps += int(drawn.steps)
        self.work.decode_slots += int(drawn.steps) * rows * len(self.shards)
        self.work.decoded += int(drawn.counts.sum())
        self.work.peak_pages = max(self.work.peak_pages, *(s.used for s in self.shards))
        yield from self._collect(drawn)

    def _collect(self, drawn: programs.Drawn) -> Iterator[tuple[Request, list[Completion]]]:
        """Hands the drawn tokens to their rows and ends those that are done."""
        whole = []
        for e, shard in enumerate(self.shards):
            for r, row in enumerate(list(shard.rows)):
                n = drawn.counts[e, r]
                row.tokens += drawn.tokens[e, r, :n].tolist()
                row.logps += drawn.logps[e, r, :n].tolist()
                row.behaviour += drawn.behaviour[e, r, :n].tolist()
                if not np.isfinite(drawn.logps[e, r, :n]).all():
                    raise FloatingPointError(
                        "sampling: the model's logits are not finite; look at the adapters' "
                        "weights, or compute with --config.model.dtype=float32"
                    )
                stopped = bool(drawn.stopped[e, r])
                if stopped or len(row.tokens) == row.group.request.max_new_tokens:
                    self.ended, self.drawn = self.ended + 1, self.drawn + len(row.tokens)
                    request, child, completion = shard.finish(row, stopped)
                    self.parts[request][child] = completion
                    if None not in self.parts[request]:
                        whole.append(request)
        for request in whole:
            parts = self.parts.pop(request)
            yield request, [part for part in parts if part is not None]

    def _fit(self, shrink: bool = False) -> None:
        """Makes the decode pools hold the pages in use; they are read whole at every step."""
        held = _length(self.shared), _length(self.decoded)
        both = [shard.shared for shard in self.shards], [shard.decoded for shard in self.shards]
        tops = [max(pages.top for pages in pool) for pool in both]
        used = [max(pages.used for pages in pool) for pool in both]
        least, grown = (
            self._sizes(shared, decoded) for shared, decoded in (used, map(max, tops, held))
        )
        enough = all(map(operator.le, tops, held))
        if enough and not (shrink and any(2 * a <= b for a, b in zip(least, held, strict=True))):
            return
        if not enough and all(map(operator.le, tops, grown)):
            sizes, ids = grown, [[range(n)] * len(self.shards) for n in held]
        else:
            compacted = [shard.compact() for shard in self.shards]
            sizes, ids = least, list(map(list, zip(*compacted, strict=True)))
        self._resize(self.shared, sizes[0], ids[0])
        self._resize(self.decoded, sizes[1], ids[1])

    def _sizes(self, shared: int, decoded: int) -> tuple[int, int]:
        """Lengths of the two decode pools. On a CPU as many as there are rows from the start: a
        spare page costs nothing there, and another length is another program."""
        least = max(64, self.rows if self.spec.platform == "cpu" else 0)
        return schedule.sizes(shared, decoded, self.memory.decode, least)

    def _resize(self, pool: kv_cache.Pool, pages: int, ids: Sequence[Sequence[int]]) -> None:
        old = np.zeros((len(self.shards), pages), np.int32)
        for e, of_shard in enumerate(ids):
            old[e, : len(of_shard)] = of_shard[:pages]
        placed = self._put(old)
        for i, layer in enumerate(pool):  # one at a time: never two whole pools
            pool[i] = self.programs.resized(layer, placed)

    def _moves(self, pairs: Sequence[Sequence[tuple[int, int]]]) -> kv_cache.Moves:
        """(from, to) pages of all shards, padded to a bucket."""
        many = np.array(list(map(len, pairs)), np.int32)
        source, to = np.zeros((2, len(pairs), bucket(many.max())), np.int32)
        for e, moved in enumerate(pairs):
            if moved:
                source[e, : len(moved)], to[e, : len(moved)] = zip(*moved, strict=True)
        moves: kv_cache.Moves = self._put(kv_cache.Moves(source, to, many))
        return moves

    def _pool(self, pages: int) -> kv_cache.Pool:
        dtype = self.spec.params["embed"].dtype
        return kv_cache.empty_pool(self.spec.config, self.spec.mesh, pages, self.size, dtype)

    def _put(self, tree: Any) -> Any:
        return meshes.put_batch(self.spec.mesh, tree)


def _length(pool: kv_cache.Pool) -> int:
    """Pages of each shard's part of a pool."""
    return pool[0][0].shape[1]


def _shapes(tree: Any) -> Any:
    """What a compiled program depends on of an argument."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
