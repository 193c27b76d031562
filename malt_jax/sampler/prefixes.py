"""Which prompt tokens are already computed: a trie of pages, a page a node. Host bookkeeping only;
the keys and values lie in the prompt pool under the same page ids.

A prompt shares every leading token with what was prefilled before, whichever prompt that was: whole
pages by their id, the rest of a page by a copy of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush


@dataclass(eq=False)
class _Page:
    tokens: tuple[int, ...]
    page: int
    parent: "_Page | None"
    children: list["_Page"] = field(default_factory=list)
    used: int = 0
    ready: bool = False  # its keys and values are computed, not only asked for


@dataclass(frozen=True)
class Place:
    """Where a prompt lies: its pages in order; tokens from `start` on are still to be computed,
    after `copy` (from page, to page) where part of a page is shared."""

    pages: list[int]
    start: int
    copy: tuple[int, int] | None


class Prefixes:
    """The prompt pool's pages: which hold what, and which may be taken for something else."""

    def __init__(self, pages: int, size: int):
        self.size = size
        self._free = list(range(pages))
        self._roots: dict[int, _Page] = {}
        self._clock = 0
        self._round: set[_Page] = set()  # in use until the next `settle`

    def place(self, adapter: int, tokens: Sequence[int]) -> Place | None:
        """Finds or makes room for a prompt under an adapter (keys and values depend on it).

        None if that has to wait for `settle`: what it would share is not computed yet, or the pages
        it needs are in use by the prompts before it.
        """
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
            child = _Page(tuple(tokens[begin : begin + self.size]), page, node)
            node.children.append(child)
            self._touch([child])
            path.append(child)
            node = child
        return Place([node.page for node in path], at + common, copy)

    def shared(self, adapter: int, tokens: Sequence[int]) -> int:
        """How many leading tokens of a prompt are there already."""
        _, at, _, common = self._match(adapter, tokens)
        return at + common

    def settle(self) -> None:
        """What was asked for is computed, and copied where it was wanted."""
        for node in self._round:
            node.ready = True
        self._round.clear()

    def _match(
        self, adapter: int, tokens: Sequence[int]
    ) -> tuple[list[_Page], int, _Page | None, int]:
        """Pages that hold the first `at` tokens, and the page with the most of what follows."""
        node, path, at = self._root(adapter), list[_Page](), 0
        while at < len(tokens):
            rest = tokens[at : at + self.size]
            best, common = None, 0
            for child in node.children:
                length = _common(child.tokens, rest)
                if length > common:
                    best, common = child, length
            if best is None or common < len(rest):
                return path, at, best, common
            path.append(best)
            at += common
            node = best
        return path, at, None, 0

    def _root(self, adapter: int) -> _Page:
        return self._roots.setdefault(adapter, _Page((), -1, None))

    def _touch(self, nodes: Sequence[_Page]) -> None:
        self._clock += 1
        for node in nodes:
            node.used = self._clock
            self._round.add(node)

    def _take(self, wanted: int) -> list[int] | None:
        """Free pages, if need be those least recently used, leaves before what they follow."""
        if wanted > len(self._free):
            idle = [(n.used, n.page, n) for n in self._leaves() if n not in self._round]
            heapify(idle)
            while idle and wanted > len(self._free):
                _, _, node = heappop(idle)
                parent = node.parent
                assert parent is not None
                parent.children.remove(node)
                self._free.append(node.page)
                if not parent.children and parent.parent and parent not in self._round:
                    heappush(idle, (parent.used, parent.page, parent))
        if wanted > len(self._free):
            return None
        taken, self._free = self._free[:wanted], self._free[wanted:]
        return taken

    def _leaves(self) -> Iterator[_Page]:
        stack = [child for root in self._roots.values() for child in root.children]
        while stack:
            node = stack.pop()
            if node.children:
                stack.extend(node.children)
            else:
                yield node


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
