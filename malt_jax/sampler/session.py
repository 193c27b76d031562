"""A run of the sampler: the loop that seats requests, prefills prompts and decodes."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from malt_jax.models import kv_cache, lora
from malt_jax.models.attention import implementation, writers
from malt_jax.models.lora import Adapter
from malt_jax.runtime import mesh as meshes
from malt_jax.runtime import process
from malt_jax.sampler import programs, schedule
from malt_jax.sampler.draw import Sampling
from malt_jax.sampler.pools import Pools
from malt_jax.sampler.prefixes import Place, Prefixes
from malt_jax.sampler.request import ByRequest, Completion, Request, Work
from malt_jax.sampler.schedule import Tile
from malt_jax.sampler.spec import Spec, few, memory, pages_needed, prefill_sizes, row_sizes
from malt_jax.sampler.widths import Widths, pause

Take = Callable[[], Request | None]


class Begun(NamedTuple):
    """A request whose children decode from now on."""

    request: Request
    shared: int  # leading tokens of its prompt that had been computed before


class Pass(NamedTuple):
    """What a decoding pass ended."""

    ended: list[tuple[Request, list[Completion]]]
    failed: list[Request]  # their logits are not finite; they hold nothing any more


class _Start(Enum):
    """What became of a request that was to start."""

    OPENED = auto()
    LATER = auto()  # what it would share is being computed
    NO_ROOM = auto()


class Session:
    """The state of one run: pools on the devices, rows and pages on the host."""

    def __init__(
        self,
        spec: Spec,
        adapters: Sequence[Adapter | None],
        how: Sampling | ByRequest,
        work: Work,
    ):
        self.spec, self.how, self.work = spec, how, work
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
        self.widths, self.tiles = row_sizes(self.rows), prefill_sizes(self.rows, self.size // 4)
        # On a CPU a pool has a page a row from the start: a spare one costs nothing there, and
        # another length is another program.
        a_row = 1 if spec.platform == "cpu" else 0
        if isinstance(how, ByRequest):
            self.widths, self.tiles, a_row = few(self.widths), few(self.tiles), 2 * a_row
        least = max(64, a_row * self.rows)
        self.pools = Pools(spec, self.memory, self.fixed, self.programs, least)
        self.held: deque[Request] = deque()
        self.opened: list[tuple[int, schedule.Group, Place]] = []
        self.parts: dict[Request, list[Completion | None]] = {}
        self.between = 0.0  # seconds of the host between passes, the last ones weighing more
        self.ended, self.drawn = 0, 0  # rows, and their tokens

    def run(self, take: Take) -> Iterator[tuple[Request, list[Completion]]]:
        """See `Sampler.run`."""
        while True:
            self.admit(take)
            if not self.busy:
                return
            ended, failed = self.decode()
            if failed:
                raise FloatingPointError(
                    "sampling: the model's logits are not finite; look at the adapters' "
                    "weights, or compute with --config.model.dtype=float32"
                )
            yield from ended
            process.heed()  # between programs: what they computed is with the caller

    @property
    def busy(self) -> int:
        """How many rows decode."""
        return sum(len(shard.rows) for shard in self.shards)

    @property
    def pages(self) -> int:
        """Pages that running requests hold, on all shards; the prefix cache's are not among
        them."""
        return sum(shard.used for shard in self.shards)

    def running(self) -> Iterator[tuple[Request, int, Sequence[int]]]:
        """The rows that decode: request, child, and the tokens drawn so far."""
        for shard in self.shards:
            for row in shard.rows:
                yield row.group.request, row.child, row.tokens

    def cancel(self, request: Request, *, lost: bool = False) -> None:
        """Ends a request where it is, between two passes: its rows and pages are free at once, but
        for `lost` pages, which nothing may read again."""
        self.held = deque(other for other in self.held if other is not request)
        if self.parts.pop(request, None) is not None:
            for shard in self.shards:
                shard.drop(request, lost=lost)

    def admit(self, take: Take) -> list[Begun]:
        """Seats children until the rows are full or there is no more to start. Prompts that share
        what others are about to compute wait for them, all together.

        Raises ValueError for a request that does not fit the context or the KV budget.
        """
        started = time.perf_counter()
        begun: list[Begun] = []
        room = True
        while room:
            later: list[Request] = []
            while room and self._seats() > sum(len(request.keys) for request in later):
                request = self.held.popleft() if self.held else take()
                if request is None:
                    break
                start = self._open(request, begun)
                room = start is not _Start.NO_ROOM
                if start is not _Start.OPENED:
                    later.append(request)
            self.held.extendleft(reversed(later))
            self._prefill()
            if not later:
                break
        self.between += (time.perf_counter() - started - self.between) / 4
        return begun

    def _seats(self) -> int:
        """Seats the children that wait, and says how many rows are left."""
        for shard in self.shards:
            shard.seat(self.rows)
        return sum(self.rows - len(shard.rows) for shard in self.shards)

    def _open(self, request: Request, begun: list[Begun]) -> _Start:
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
        begun.append(Begun(request, place.start))
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
        tiles: list[list[Tile]] = [[] for _ in self.shards]
        width = self.size // 4
        for e, group, place in self.opened:
            if place.copy is not None:
                copies[e].append(place.copy)
            end = len(group.request.prompt) - 1
            starts = range(place.start, end, width)
            tiles[e] += [Tile(group.request, at, place.pages) for at in starts]
            moves[e] += list(zip(place.pages, group.pages, strict=True))
        self.opened = []
        if any(copies):
            self.pools.copy_prompts(copies)
        largest = self.tiles[-1]
        for begin in range(0, max(map(len, tiles)), largest):
            self._prefill_pass([of_shard[begin : begin + largest] for of_shard in tiles])
        self.pools.fit(self.shards)
        self.pools.share(moves)
        for prefixes in self.prefixes:
            prefixes.settle()

    def _prefill_pass(self, tiles: Sequence[Sequence[Tile]]) -> None:
        most = max(map(len, tiles))
        key = "prefill", *self.shapes, self.memory.prompts
        widths = self.programs.costs.setdefault(key, Widths())
        n = widths.choose(self.tiles, most, math.inf if self.alike else 1)
        pages, pad_id = self.memory.prompts, self.spec.pad_id
        laid_out = schedule.lay_out_tiles(tiles, n, self.size, self.columns, pages, pad_id)
        self.work.prefill_slots += laid_out[0].tokens.size
        placed, begun = self._put(laid_out), time.perf_counter()
        self.pools.prompts = self.programs.prefill(
            self.fixed, self.spec.params, self.adapter, self.gates, self.pools.prompts, *placed
        )
        if not widths.seconds.get(n):  # its time is not known: once it is, nothing waits for it
            jax.block_until_ready(self.pools.prompts)
            widths.ran(n, 1, time.perf_counter() - begun)
        widths.lose(n, self.tiles, most, 1)

    def decode(self) -> Pass:
        """One pass of decoding over the seated rows, of which there is at least one."""
        for shard in self.shards:
            shard.grow(programs.STEPS, self.size)
        busiest, live = max(len(shard.rows) for shard in self.shards), self.busy
        # A CPU reads no page that is not in use.
        self.pools.fit(self.shards, shrink=self.spec.platform != "cpu")
        sampling = self.how if isinstance(self.how, Sampling) else None
        pages = self.pools.lengths
        widths = self.programs.costs.setdefault((*self.shapes, sampling, pages), Widths())
        left = max(row.left for shard in self.shards for row in shard.rows)
        rows = widths.choose(self.widths, busiest, math.inf if self.alike else left)
        plan = schedule.plan(self.shards, rows, pages, self.spec.siblings, self.columns, self.size)
        step = 0.0 if self.alike else widths.seconds.get(rows, 0.0)
        if isinstance(self.how, ByRequest):
            plan.how = schedule.by_row(self.shards, rows)
            steps = self.how.tick / step if step else 1
            plan.most = np.int32(np.clip(steps, 1, programs.STEPS))
        free = pause(rows, self.between, step, self.drawn / max(self.ended, 1))
        placed, begun = self._put(plan), time.perf_counter()
        drawn, self.pools.decoded = self.programs.decode(
            self.fixed,
            self.spec.params,
            self.adapter,
            self.gates,
            self.pools.shared,
            self.pools.decoded,
            placed,
            np.int32(max(live - free, 0)),
            sampling,
        )
        with process.watched("decoding"):
            drawn = meshes.fetch(drawn)
        widths.ran(rows, int(drawn.steps), time.perf_counter() - begun)
        widths.lose(rows, self.widths, busiest, int(drawn.steps))
        self.work.steps += int(drawn.steps)
        self.work.decode_slots += int(drawn.steps) * rows * len(self.shards)
        self.work.decoded += int(drawn.counts.sum())
        self.work.peak_pages = max(self.work.peak_pages, *(s.used for s in self.shards))
        return self._collect(drawn)

    def _collect(self, drawn: programs.Drawn) -> Pass:
        """Hands the drawn tokens to their rows and ends those that are done."""
        whole, failed = [], []
        for e, shard in enumerate(self.shards):
            for r, row in enumerate(list(shard.rows)):
                n = drawn.counts[e, r]
                row.tokens += drawn.tokens[e, r, :n].tolist()
                row.logps += drawn.logps[e, r, :n].tolist()
                row.behaviour += drawn.behaviour[e, r, :n].tolist()
                if not np.isfinite(drawn.logps[e, r, :n]).all():
                    failed.append(row.group.request)
                    continue
                stopped = bool(drawn.stopped[e, r])
                if stopped or len(row.tokens) == row.group.request.max_new_tokens:
                    self.ended, self.drawn = self.ended + 1, self.drawn + len(row.tokens)
                    request, child, completion = shard.finish(row, stopped)
                    self.parts[request][child] = completion
                    if None not in self.parts[request]:
                        whole.append(request)
        for request in failed:
            self.cancel(request, lost=True)
        parts = [(request, self.parts.pop(request)) for request in whole]
        ended = [
            (request, [part for part in every if part is not None]) for request, every in parts
        ]
        return Pass(ended, failed)

    def _put(self, tree: Any) -> Any:
        return meshes.put_batch(self.spec.mesh, tree)


def _shapes(tree: Any) -> Any:
    """What a compiled program depends on of an argument."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
