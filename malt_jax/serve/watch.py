"""Files from which adapters are read, and whether they are others now."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from absl import logging

from malt_jax.serve.batcher import Adapters
from malt_jax.workdir import storage

Stamps = list[tuple[float, ...] | None]


@dataclass
class Watched:
    """Adapters on a disk or in a bucket.

    `files` change when an adapter is written anew. `load` reads all adapters, and raises ValueError
    or OSError for one that cannot be read.
    """

    files: Sequence[Path]
    load: Callable[[], Adapters]
    seconds: float = 2.0  # between two looks
    _known: Stamps = field(init=False)
    _last: Stamps = field(init=False)

    def __post_init__(self) -> None:
        self._known = self._last = self._stamps()

    def changed(self) -> Adapters | None:
        """The adapters, if they are others than before and have not changed since the last look:
        what is being written is not read. What cannot be read is told, and stays as it was."""
        now = self._stamps()
        settled, self._last = now == self._last, now
        if now == self._known or not settled or None in now:
            return None
        self._known = now
        try:
            return self.load()
        except (ValueError, OSError) as error:
            logging.warning("the adapters stay as they were: %s", error)
            return None

    def _stamps(self) -> Stamps:
        return [storage.stamp(file) for file in self.files]
