"""Tokens as they are drawn, as text that can be shown: whole characters, and nothing that a stop
string may still take back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from malt_jax.text.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"  # what a character decodes to whose last bytes are still to come


@dataclass
class Spelling:
    """The text of one completion while it is drawn.

    The last tokens are decoded again with those that follow, because what a token writes may depend
    on those beside it; older ones are not, so that a long text costs no more a token than a short
    one.
    """

    tokenizer: Tokenizer
    stop: Sequence[str] = ()
    text: str = ""  # that has been shown
    tokens: int = 0  # that it is made of, and the one that completes a stop string
    stopped: bool = False  # by a stop string
    _ids: list[int] = field(default_factory=list)
    _again: int = 0  # tokens from here to `_spelled` are decoded again with those that follow
    _spelled: int = 0
    _held: str = ""  # spelled, and not shown yet

    def feed(self, ids: Sequence[int]) -> str:
        """What can be shown after more tokens. Those behind a stop string do not count."""
        shown = ""
        # One by one where they may have to be cut: where a pass ended must not show.
        for some in [[i] for i in ids] if self.stop else [ids]:
            if not self.stopped:
                self._ids += some
                self.tokens += len(some)
                shown += self._show(last=False)
        return shown

    def end(self) -> str:
        """What is left to be shown once no token follows."""
        return "" if self.stopped else self._show(last=True)

    def _show(self, *, last: bool) -> str:
        self._held += self._decode(last)
        ends = [at for stop in self.stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(ends)
        if ends:
            cut = min(ends)
        elif last:
            cut = len(self._held)
        else:
            cut = len(self._held) - _overlap(self._held, self.stop)
        shown, self._held = self._held[:cut], self._held[cut:]
        self.text += shown
        return shown

    def _decode(self, last: bool) -> str:
        """The text of the tokens that are not spelled yet; none of a character's first bytes."""
        before = self.tokenizer.decode(self._ids[self._again : self._spelled])
        now = self.tokenizer.decode(self._ids[self._again :])
        if now.endswith(_INCOMPLETE) and not last:
            return ""
        if now != before:
            self._again = self._spelled
        self._spelled = len(self._ids)
        return now[len(before) :]


def _overlap(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of `text` with which a stop string begins."""
    lengths = range(min(len(text), max(map(len, stops), default=1) - 1), 0, -1)
    ends = (n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops))
    return next(ends, 0)
