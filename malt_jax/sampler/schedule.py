"""Who decodes where: rows, their pages and the plan of a decoding pass, all on the host in numpy.

A group is up to C children of one prompt that read its pages together. A row takes pages as it
grows, but a group only starts once the pages that its children may come to need are set aside, so
a running row never waits for memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from malt_jax.models.paged import Reads, Tiles
from malt_jax.sampler.draw import ByRow
from malt_jax.sampler.request import Completion, Request
from malt_jax.sampler.spec import pages_needed


@dataclass(eq=False)
class Group:
    """Children `first`, `first + 1`, ... of a request, on a shard whose shared pool holds its
    prompt (all but the last token, the first input of every child) in `pages`."""

    request: Request
    children: list[int]
    pages: list[int]
    waiting: list[int]
    unfinished: int
    reserved: int


@dataclass(eq=False)
class Row:
    """One child that decodes. Its own pages hold the last prompt token and what it drew."""

    group: Group
    child: int
    pages: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    behaviour: list[float] = field(default_factory=list)

    @property
    def fed(self) -> int:
        """The token to feed next."""
        return self.tokens[-1] if self.tokens else self.group.request.prompt[-1]

    @property
    def left(self) -> int:
        """The most tokens that it may still draw."""
        return self.group.request.max_new_tokens - len(self.tokens)


@dataclass
class Pages:
    """Which pages of a pool are in use."""

    used: int = 0
    top: int = 0  # below it lie all used ones
    _free: list[int] = field(default_factory=list)

    def take(self, n: int) -> list[int]:
        """The n lowest free pages."""
        taken = []
        for _ in range(n):
            if self._free:
                taken.append(heappop(self._free))
            else:
                taken.append(self.top)
                self.top += 1
        self.used += n
        return taken

    def give(self, pages: Sequence[int]) -> None:
        """Takes pages back."""
        for page in pages:
            heappush(self._free, page)
        self.used -= len(pages)

    def renumber(self, holders: Iterable[list[int]]) -> list[int]:
        """Numbers the pages that are held from 0 on: the old id of each new one."""
        old: list[int] = []
        for pages in holders:
            start = len(old)
            old += pages
            pages[:] = range(start, len(old))
        self._free, self.top = [], len(old)
        return old


@dataclass
class Shard:
    """Rows and pages of one shard."""

    capacity: int  # pages of both pools that it may ever use
    groups: list[Group] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    reserved: int = 0
    shared: Pages = field(default_factory=Pages)  # of prompts, held by groups
    decoded: Pages = field(default_factory=Pages)  # of what rows drew

    @property
    def used(self) -> int:
        """Pages in use in both pools."""
        return self.shared.used + self.decoded.used

    def room(self, pages: int) -> bool:
        """Whether a group that may come to need so many pages can start."""
        return self.reserved + pages <= self.capacity

    def open(self, request: Request, children: list[int], size: int) -> Group:
        """Starts a group; its children wait for rows."""
        prompt, decoded = pages_needed(len(request.prompt), request.max_new_tokens, size)
        reserved = prompt + len(children) * decoded
        self.reserved += reserved
        pages = self.shared.take(prompt)
        group = Group(request, children, pages, list(children), len(children), reserved)
        self.groups.append(group)
        return group

    def seat(self, rows: int) -> None:
        """Gives free rows to waiting children, the oldest group's first."""
        for group in self.groups:
            while group.waiting and len(self.rows) < rows:
                self.rows.append(Row(group, group.waiting.pop(0)))

    def grow(self, steps: int, size: int) -> None:
        """Gives every row the pages for its next tokens."""
        for row in self.rows:
            last = min(len(row.tokens) + steps, row.group.request.max_new_tokens)
            row.pages += self.decoded.take(-(-last // size) - len(row.pages))

    def finish(self, row: Row, stopped: bool) -> tuple[Request, int, Completion]:
        """Ends a row and gives its pages back, with the group's if it was the last."""
        group = row.group
        self.rows.remove(row)
        self.decoded.give(row.pages)
        group.unfinished -= 1
        if not group.unfinished:
            self.shared.give(group.pages)
            self.reserved -= group.reserved
            self.groups.remove(group)
        logps, behaviour = np.array([row.logps, row.behaviour], np.float32)
        completion = Completion(row.tokens, logps, behaviour, stopped)
        return group.request, row.child, completion

    def drop(self, request: Request, *, lost: bool) -> None:
        """Ends a request's groups where they are. Their pages may be taken for something else at
        once; `lost` ones never again."""
        for group in [group for group in self.groups if group.request is request]:
            self.groups.remove(group)
            rows = [row for row in self.rows if row.group is group]
            self.rows = [row for row in self.rows if row.group is not group]
            if not lost:
                self.reserved -= group.reserved
                self.shared.give(group.pages)
                self.decoded.give([page for row in rows for page in row.pages])

    def compact(self) -> tuple[list[int], list[int]]:
        """Renumbers the pages in use, shared and decoded, from 0 on: the old id of each new one."""
        return (
            self.shared.renumber(group.pages for group in self.groups),
            self.decoded.renumber(row.pages for row in self.rows),
        )


def sizes(shared: int, decoded: int, capacity: int, least: int = 64) -> tuple[int, int]:
    """Lengths of the two decode pools, of `capacity` pages at most together, that are to hold so
    many pages each, and at least `least`. Few lengths: each makes a program, and a spare page costs
    little."""
    first, second = (1 << (max(least, pages) - 1).bit_length() for pages in (shared, decoded))
    if first + second <= capacity:
        return first, second
    first = min(first, max(capacity - decoded, 1))
    return first, capacity - first


@dataclass
class Plan:
    """A decoding pass of all shards (E) as arrays, numpy's here and jax's in the program: R rows, W
    pages decoded by rows."""

    token: Any  # int32[E, R], fed first
    count: Any  # int32[E, R], tokens drawn so far
    limit: Any  # int32[E, R], tokens it may draw; 0 for an empty row
    keys: Any  # uint32[E, R, 2]
    adapter: Any  # int32[E, R]
    before: Any  # int32[E, R], prompt tokens without the last
    shared: Reads
    decoded: Reads  # what is seen grows with every token: the program works it out
    begin: Any  # int32[E, W], place of a decoded page's first token in its row; -1 for no page
    how: ByRow | None = None  # [E, R]; None: all rows are sampled in one way
    most: Any = None  # int32[], steps of the pass, where rows are sampled each in its own way


def plan(
    shards: Sequence[Shard],
    rows: int,
    pages: tuple[int, int],
    readers: int,
    columns: int,
    size: int,
) -> Plan:
    """Lays out the shards' rows for one pass, in arrays of the given sizes; `pages` are those of
    the shared pool and of what rows decode."""
    n = len(shards)

    def full(value: int, *shape: int) -> np.ndarray:
        return np.full((n, *shape), value, np.int32)

    def reads(pages: int, readers: int) -> Reads:
        places, table = (pages, readers), full(pages, rows, columns)
        return Reads(full(0, *places), full(0, *places), table, full(0, rows, columns), np.int32(0))

    p = Plan(
        token=full(0, rows),
        count=full(0, rows),
        limit=full(0, rows),
        keys=np.zeros((n, rows, 2), np.uint32),
        adapter=full(0, rows),
        before=full(0, rows),
        shared=reads(pages[0], readers),
        decoded=reads(pages[1], 1),
        begin=full(-1, pages[1]),
    )
    for e, shard in enumerate(shards):
        _lay_out(p, e, shard.rows, size)
    seated = [row for shard in shards for row in shard.rows]
    p.shared = p.shared._replace(depth=_most(len(row.group.pages) for row in seated))
    p.decoded = p.decoded._replace(depth=_most(len(row.pages) for row in seated))
    return p


def by_row(shards: Sequence[Shard], rows: int) -> ByRow:
    """How each of the shards' rows is sampled: [E, R]; empty rows greedily."""
    shape = len(shards), rows
    how = ByRow(np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.ones(shape, np.float32))
    for e, shard in enumerate(shards):
        for r, row in enumerate(shard.rows):
            sampling = row.group.request.sampling
            how.temperature[e, r] = sampling.temperature
            how.top_k[e, r], how.top_p[e, r] = sampling.top_k, sampling.top_p
    return how


def _lay_out(p: Plan, e: int, rows: Sequence[Row], size: int) -> None:
    """Writes a shard's rows into the plan, field by field: row by row it takes three times as
    long, and the devices wait."""
    if not rows:
        return
    n, requests = len(rows), [row.group.request for row in rows]
    before = np.array([len(request.prompt) - 1 for request in requests], np.int32)
    seats = np.array([row.group.children.index(row.child) for row in rows], np.int32)
    p.token[e, :n] = [row.fed for row in rows]
    p.count[e, :n] = [len(row.tokens) for row in rows]
    p.limit[e, :n] = [request.max_new_tokens for request in requests]
    p.adapter[e, :n] = [request.adapter for request in requests]
    p.keys[e, :n] = [request.keys[row.child] for request, row in zip(requests, rows, strict=True)]
    p.before[e, :n] = before
    r, j, page = _pages([row.group.pages for row in rows])
    p.shared.table[e, r, j], p.shared.member[e, r, j] = page, seats[r]
    p.shared.readers[e, page, seats[r]] = r
    p.shared.seen[e, page, seats[r]] = np.clip(before[r] - size * j, 0, size)
    r, j, page = _pages([row.pages for row in rows])
    p.decoded.table[e, r, j], p.decoded.readers[e, page, 0] = page, r
    p.begin[e, page] = size * j


def _pages(pages: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows' pages as triples (row, place in it, page): int32[3, pages of all rows]."""
    triples = [(r, j, page) for r, held in enumerate(pages) for j, page in enumerate(held)]
    return np.array(triples, np.int32).reshape(-1, 3).T


def _most(depths: Iterable[int]) -> np.int32:
    return np.int32(max(depths, default=0))


class Tile(NamedTuple):
    """A stretch of a prompt that is to be computed."""

    request: Request
    start: int  # place of its first token in the prompt
    pages: Sequence[int]  # the prompt's, in order


def lay_out_tiles(
    tiles: Sequence[Sequence[Tile]], n: int, size: int, columns: int, pages: int, pad_id: int
) -> tuple[Tiles, np.ndarray]:
    """The shards' tiles of a prefill pass in arrays of `n` tiles of a quarter of a page, over a
    pool of so many `pages` of `size` tokens, and their adapters int32[E, n]. A prompt's last
    token is left out."""
    shape, width = (len(tiles), n), size // 4
    tokens = np.full((*shape, width), pad_id, np.int32)
    start, length, adapter = (np.zeros(shape, np.int32) for _ in range(3))
    table = np.full((*shape, columns), pages, np.int32)
    depth = 0
    for e, of_shard in enumerate(tiles):
        for b, tile in enumerate(of_shard):
            prompt, at = tile.request.prompt, tile.start
            part = prompt[at : min(at + width, len(prompt) - 1)]
            tokens[e, b, : len(part)] = part
            start[e, b], length[e, b], adapter[e, b] = at, len(part), tile.request.adapter
            table[e, b, : len(tile.pages)] = tile.pages
            depth = max(depth, -(-(at + len(part)) // size))
    return Tiles(tokens, start, length, table, np.int32(depth)), adapter
