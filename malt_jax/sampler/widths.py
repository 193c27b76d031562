"""Which width of a compiled program to run. A narrower program than those that are compiled is
compiled only where it saves more than compiling takes.

Without this rule a run ends with a compilation of seconds for every width that its last rows pass
through, each of which then saves milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Widths:
    """The widths of one program, and what this process saw of their costs.

    The price of a step is taken to be proportional to its width, which overstates what a narrower
    program saves. What it would have saved so far counts as well: after a loss as large as its
    compilation it is compiled, so that at most twice the least possible time is lost.
    """

    compiling: float = 0.0  # seconds of the last compilation
    seconds: dict[int, float] = field(default_factory=dict)  # of a step, by width; 0: not known yet
    lost: dict[int, float] = field(default_factory=dict)  # seconds, by width that is not compiled

    def choose(self, ladder: Sequence[int], least: int, steps: float) -> int:
        """The width to run, at least `least` and of `ladder` (ascending) if it is a new one, with
        so many `steps` to come; `math.inf` chooses the narrowest, whatever it costs."""
        narrowest = _narrowest(ladder, least)
        compiled = min((width for width in self.seconds if width >= least), default=0)
        if not compiled or compiled <= narrowest:
            return compiled or narrowest
        saved = self._saved(compiled, narrowest)
        total = math.inf if math.isinf(steps) else self.lost.get(narrowest, 0.0) + saved * steps
        return narrowest if total > self.compiling else compiled

    def ran(self, width: int, steps: int, seconds: float) -> None:
        """Notes the time of a pass; that of the first one is its compilation's."""
        if width not in self.seconds:
            self.compiling, self.seconds[width] = seconds, 0.0
            return
        step, known = seconds / max(steps, 1), self.seconds[width]
        self.seconds[width] = min(step, known) if known else step

    def lose(self, width: int, ladder: Sequence[int], least: int, steps: int) -> None:
        """Notes a pass of `steps` at that width, where `least` would have been enough."""
        narrowest = _narrowest(ladder, least)
        if narrowest < width:
            before = self.lost.get(narrowest, 0.0)
            self.lost[narrowest] = before + self._saved(width, narrowest) * steps

    def _saved(self, width: int, narrower: int) -> float:
        """Seconds of a step."""
        return self.seconds[width] * (1 - narrower / width)


def _narrowest(ladder: Sequence[int], least: int) -> int:
    return next(width for width in ladder if width >= least)


def pause(rows: int, between: float, step: float, length: float) -> int:
    """How many free rows of `rows` end a pass, so that others take their places.

    Args:
        between: seconds of the host between two passes.
        step: seconds of a step.
        length: tokens of a row, on average.

    While k rows become free, `rows / length` a step, half of them wait: the passes for a row cost
    `between / k + step * length * k / (2 * rows^2)`, which is least at
    `k = rows * sqrt(2 * between / (step * length))`. Never more than a quarter, so that what
    follows from the rows that end starts early; a sixteenth where a step's time is not known.
    """
    best = rows * math.sqrt(2 * between / (step * length)) if step and length else rows / 16
    return max(1, min(round(best), rows // 4))


Costs = dict[Any, Widths]
"""By all that a program's shape depends on but its width."""
