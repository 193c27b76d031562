"""Who decodes where: rows, their pages and the plan of a decoding pass, all on the host in numpy.

A group is up to C children of one prompt that read its pages together. A row takes pages as it
grows, but a group only starts once the pages that its children may come to need are set aside, so
a running row never waits for memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np

from malt_jax.sampler.request import Completion, Request
from malt_jax.sampler.spec import pages_needed


@dataclass(eq=False)
class Group:
    """Children `first`, `first + 1`, ... of a request, on a shard whose decode pool holds its
    prompt (all but the last token, which is every child's own first input) in `pages`."""

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

    @property
    def fed(self) -> int:
        """The token to feed next."""
        return self.tokens[-1] if self.tokens else self.group.request.prompt[-1]


@dataclass
class Shard:
    """Rows and pages of one shard."""

    capacity: int  # pages it may ever use
    groups: list[Group] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    reserved: int = 0
    used: int = 0  # pages in use
    top: int = 0  # pages below which all used ones lie
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

    def room(self, pages: int) -> bool:
        """Whether a group that may come to need so many pages can start."""
        return self.reserved + pages <= self.capacity

    def open(self, request: Request, children: list[int], size: int) -> Group:
        """Starts a group; its children wait for rows."""
        prompt, own = pages_needed(len(request.prompt), request.max_new_tokens, size)
        reserved = prompt + len(children) * own
        self.reserved += reserved
        group = Group(request, children, self.take(prompt), list(children), len(children), reserved)
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
            row.pages += self.take(-(-last // size) - len(row.pages))

    def finish(self, row: Row, stopped: bool) -> tuple[Request, int, Completion]:
        """Ends a row and gives its pages back, with the group's if it was the last."""
        group = row.group
        self.rows.remove(row)
        self.give(row.pages)
        group.unfinished -= 1
        if not group.unfinished:
            self.give(group.pages)
            self.reserved -= group.reserved
            self.groups.remove(group)
        completion = Completion(row.tokens, np.array(row.logps, np.float32), stopped)
        return group.request, row.child, completion

    def compact(self) -> list[int]:
        """Renumbers the pages in use from 0 on: the old id of each new one."""
        old: list[int] = []
        for pages in [group.pages for group in self.groups] + [row.pages for row in self.rows]:
            start = len(old)
            old += pages
            pages[:] = range(start, len(old))
        self._free, self.top = [], len(old)
        return old


@dataclass
class Plan:
    """A decoding pass of all shards (E) as arrays, numpy's here and jax's in the program: R rows, W
    pages, C readers, J pages a row."""

    token: Any  # int32[E, R], fed first
    count: Any  # int32[E, R], tokens drawn so far
    limit: Any  # int32[E, R], tokens it may draw; 0 for an empty row
    keys: Any  # uint32[E, R, 2]
    adapter: Any  # int32[E, R]
    before: Any  # int32[E, R], prompt tokens without the last
    first: Any  # int32[E, R], prompt pages: a row's own follow them in its table
    table: Any  # int32[E, R, J], W where there is none
    member: Any  # int32[E, R, J]
    readers: Any  # int32[E, W, C]
    filled: Any  # int32[E, W, C], tokens that a reader sees of a prompt page
    own: Any  # int32[E, W], a row's own page: its first token's place; -1 otherwise
    depth: Any  # int32[]


def plan(
    shards: Sequence[Shard], rows: int, pages: int, readers: int, columns: int, size: int
) -> Plan:
    """Lays out the shards' rows for one pass, in arrays of the given sizes."""
    n = len(shards)

    def full(value: int, *shape: int) -> np.ndarray:
        return np.full((n, *shape), value, np.int32)

    p = Plan(
        token=full(0, rows),
        count=full(0, rows),
        limit=full(0, rows),
        keys=np.zeros((n, rows, 2), np.uint32),
        adapter=full(0, rows),
        before=full(0, rows),
        first=full(0, rows),
        table=full(pages, rows, columns),
        member=full(0, rows, columns),
        readers=full(0, pages, readers),
        filled=full(0, pages, readers),
        own=full(-1, pages),
        depth=np.zeros((), np.int32),
    )
    for e, shard in enumerate(shards):
        for r, row in enumerate(shard.rows):
            request, prompt = row.group.request, row.group.pages
            before = len(request.prompt) - 1
            p.token[e, r], p.count[e, r] = row.fed, len(row.tokens)
            p.limit[e, r], p.adapter[e, r] = request.max_new_tokens, request.adapter
            p.keys[e, r], p.before[e, r] = request.keys[row.child], before
            p.first[e, r] = len(prompt)
            together = [*prompt, *row.pages]
            p.table[e, r, : len(together)] = together
            seat = row.group.children.index(row.child)
            p.member[e, r, : len(prompt)] = seat
            p.readers[e, prompt, seat] = r
            p.filled[e, prompt, seat] = np.clip(before - size * np.arange(len(prompt)), 0, size)
            p.readers[e, row.pages, 0] = r
            p.own[e, row.pages] = size * np.arange(len(row.pages))
            p.depth[...] = max(p.depth, len(together))
    return p
