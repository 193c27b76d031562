"""Which prompt tokens are already computed: a trie of pages, a page a node. Host bookkeeping only;
the keys and values lie in the prompt pool under the same page ids.

A prompt shares every leading token with what was prefilled before, whichever prompt that was: whole
pages by their id, the rest of a page by a copy of it. Whole pages are looked up by their tokens;
only the page at which a prompt leaves all others is compared token by token, with all that follow
the same page at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

_UNUSED = -1  # no token has this id


@dataclass(eq=False)
class _Page:
    key: bytes  # of its tokens
    page: int
    parent: "_Page | None"
    children: "_Children"
    row: int = -1  # among its parent's children
    used: int = 0
    ready: bool = False  # its keys and values are computed, not only asked for


@dataclass
class _Children:
    """The pages that follow a page, in the order in which they came."""

    size: int
    by_key: dict[bytes, _Page] = field(default_factory=dict)
    _rows: list[_Page | None] = field(default_factory=list)
    _tokens: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int32))  # [rows, size]

    def add(self, child: _Page, tokens: np.ndarray) -> None:
        """Adds a page that holds `tokens`, int32[at most `size`]."""
        if len(self._rows) == len(self._tokens):
            self._make_room()
        child.row = len(self._rows)
        self._rows.append(child)
        self._tokens[child.row, : len(tokens)] = tokens
        self.by_key[child.key] = child

    def remove(self, child: _Page) -> None:
        """Forgets a page."""
        del self.by_key[child.key]
        self._rows[child.row] = None
        self._tokens[child.row] = _UNUSED

    def closest(self, tokens: np.ndarray) -> tuple[_Page | None, int]:
        """The page with the most of `tokens`, int32[1 to `size`], at its beginning, of several the
        one that came first, and how many it has; None where none has the first."""
        if not self._rows:
            return None, 0
        (rows,) = np.nonzero(self._tokens[: len(self._rows), 0] == tokens[0])
        if not len(rows):
            return None, 0
        differs = self._tokens[rows, : len(tokens)] != tokens
        lengths = np.where(differs.any(1), differs.argmax(1), len(tokens))
        most = int(lengths.argmax())
        return self._rows[rows[most]], int(lengths[most])

    def _make_room(self) -> None:
        """Doubles the rows, and leaves out those of pages that are gone."""
        kept = [child for child in self._rows if child is not None]
        tokens = np.full((max(2 * len(kept), 1), self.size), _UNUSED, np.int32)
        tokens[: len(kept)] = self._tokens[[child.row for child in kept]] if kept else _UNUSED
        for row, child in enumerate(kept):
            child.row = row
        self._rows, self._tokens = list(kept), tokens


@dataclass(frozen=True)
class Place:
    """Where a prompt lies: its pages in order; tokens from `start` on are still to be computed,
    after `copy` (from page, to page) where part of a page is shared."""

    pages: list[int]
    start: int
    copy: tuple[int, int] | None


class Prefixes:
    """The prompt pool's pages: which hold what, and which may be taken for something else.

    Prompts are int32[T], or sequences that become that.
    """

    def __init__(self, pages: int, size: int):
        self.size = size
        self._pages = pages
        self._free = list(range(pages))
        self._roots: dict[int, _Page] = {}
        self._clock = 0
        self._round: set[_Page] = set()  # in use until the next `settle`
        # Leaves by (used, page): each has the entry of its last use, and older ones mean nothing.
        self._idle: list[tuple[int, int, _Page]] = []

    def place(self, adapter: int, tokens: Sequence[int] | np.ndarray) -> Place | None:
        """Finds or makes room for a prompt under an adapter (keys and values depend on it).

        None if that has to wait for `settle`: what it would share is not computed yet, or the pages
        it needs are in use by the prompts before it.
        """
        tokens = np.asarray(tokens, np.int32)
        path, at, best, common = self._match(adapter, tokens)
        self._touch(path)
        if at == len(tokens):
            return Place([node.page for node in path], at, None)
        if common and best is not None:
            if not best.ready:
                return None
            self._touch([best])
        wanted = -(-(len(tokens) - at) // self.size)
        fresh = self._take(wanted)
        if fresh is None:
            return None
        copy = (best.page, fresh[0]) if common and best is not None else None
        node = path[-1] if path else self._root(adapter)
        for i, page in enumerate(fresh):
            begin = at + i * self.size
            held = tokens[begin : begin + self.size]
            child = _Page(held.tobytes(), page, node, _Children(self.size))
            node.children.add(child, held)
            self._touch([child])
            path.append(child)
            node = child
        return Place([node.page for node in path], at + common, copy)

    def shared(self, adapter: int, tokens: Sequence[int] | np.ndarray) -> int:
        """How many leading tokens of a prompt are there already."""
        _, at, _, common = self._match(adapter, np.asarray(tokens, np.int32))
        return at + common

    def settle(self) -> None:
        """What was asked for is computed, and copied where it was wanted."""
        for node in self._round:
            node.ready = True
        self._round.clear()

    def _match(
        self, adapter: int, tokens: np.ndarray
    ) -> tuple[list[_Page], int, _Page | None, int]:
        """Pages that hold the first `at` tokens, and the page with the most of what follows."""
        node, path, at = self._root(adapter), list[_Page](), 0
        while at < len(tokens):
            rest = tokens[at : at + self.size]
            best = node.children.by_key.get(rest.tobytes()) if len(rest) == self.size else None
            common = self.size
            if best is None:
                best, common = node.children.closest(rest)
            if best is None or common < len(rest):
                return path, at, best, common
            path.append(best)
            at += common
            node = best
        return path, at, None, 0

    def _root(self, adapter: int) -> _Page:
        if adapter not in self._roots:
            self._roots[adapter] = _Page(b"", -1, None, _Children(self.size))
        return self._roots[adapter]

    def _touch(self, nodes: Sequence[_Page]) -> None:
        self._clock += 1
        for node in nodes:
            node.used = self._clock
            self._round.add(node)
            if not node.children.by_key:
                heappush(self._idle, (node.used, node.page, node))

    def _take(self, wanted: int) -> list[int] | None:
        """Free pages, if need be those least recently used, leaves before what they follow."""
        if len(self._idle) > 4 * self._pages + 64:
            self._idle = [(node.used, node.page, node) for node in self._leaves()]
            heapify(self._idle)
        while wanted > len(self._free) and self._idle:
            used, _, node = self._idle[0]
            if node in self._round and node.used == used:
                break  # as are all others: they were used later
            heappop(self._idle)
            if node.parent is None or node.used != used or node.children.by_key:
                continue
            parent, node.parent = node.parent, None
            parent.children.remove(node)
            self._free.append(node.page)
            if not parent.children.by_key and parent.parent:
                heappush(self._idle, (parent.used, parent.page, parent))
        if wanted > len(self._free):
            return None
        taken, self._free = self._free[:wanted], self._free[wanted:]
        return taken

    def _leaves(self) -> Iterator[_Page]:
        stack = [child for root in self._roots.values() for child in root.children.by_key.values()]
        while stack:
            node = stack.pop()
            if node.children.by_key:
                stack.extend(node.children.by_key.values())
            else:
                yield node
