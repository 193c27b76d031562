"""Scales, axes and frames of inline SVG, coloured by class, so that the style sheet's themes hold.

A chart with two axes is drawn in its own units and scales as a whole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 340.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 10.0, 10.0, 24.0

Point = tuple[float, float]


def typeset(number: str) -> str:
    """A formatted number with a minus sign in place of its hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Scale:
    """A linear map of [low, high] onto [start, end], with round ticks inside, or `whole` ones."""

    low: float
    high: float
    start: float
    end: float
    whole: bool = False

    def at(self, x: float) -> float:
        """Where `x` lies."""
        return self.start + (x - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def step(self) -> float:
        """1, 2 or 5 times a power of ten: the smallest that gives at most five gaps."""
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
        return max(step, 1.0) if self.whole else step

    @property
    def ticks(self) -> list[float]:
        """The multiples of `step` inside."""
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [i * self.step for i in range(first, last + 1)]


@dataclass(frozen=True)
class LogScale(Scale):
    """The same of the logarithm; ticks are 1, 2 and 5 times powers of ten, or the powers alone."""

    def at(self, x: float) -> float:
        """Where `x` > 0 lies."""
        share = math.log(x / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers inside; more of them where the range is short."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high < 1000 * self.low else (1,)
        every = [step * 10.0**power for power in decades for step in steps]
        return [x for x in every if self.low <= x <= self.high]


def percent_scale(values: Sequence[float], *bounds: float) -> Scale:
    """Covers `values` and an eighth of their range on either side, in percent of a row's width.

    With `bounds` (low, high) the margin does not go beyond them.
    """
    low, high = min(values), max(values)
    margin = (high - low) / 8 or 0.05
    low, high = low - margin, high + margin
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Scale(low, high, 0, 100)


def axes(x: Scale, y: Scale, suffix: str = "") -> str:
    """Grid lines and the labels of both axes of a chart; `suffix` is that of the upright one."""
    parts = []
    for tick in y.ticks:
        at = n(y.at(tick))
        parts.append(
            f'<line class="grid" x1="{n(x.start)}" x2="{n(x.end)}" y1="{at}" y2="{at}"/>'
            f'<text class="tick" x="{n(x.start - 6)}" y="{n(y.at(tick) + 3.5)}" '
            f'text-anchor="end">{short(tick)}{suffix}</text>'
        )
    for tick in x.ticks:
        parts.append(
            f'<text class="tick" x="{n(x.at(tick))}" y="{n(y.start + 16)}" '
            f'text-anchor="middle">{short(tick)}</text>'
        )
    return "".join(parts)


def chart(
    label: str,
    parts: Sequence[str],
    width: float = WIDTH,
    height: float = HEIGHT,
    kind: str = "",
) -> Markup:
    """The frame of a chart; `parts` are finished markup, `kind` is one more class."""
    return Markup(
        f'<svg class="{" ".join(["chart", *kind.split()])}" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def polyline(points: Sequence[Point], kind: str = "") -> str:
    """A line through points in a chart's own units."""
    path = " ".join(f"{n(x)},{n(y)}" for x, y in points)
    return f'<polyline class="{" ".join(["line", *kind.split()])}" points="{path}"/>'


def short(x: float) -> str:
    """12000 -> "12k"; no rounding error of a tick shows."""
    return typeset(f"{x / 1000:g}k" if abs(x) >= 10_000 else f"{round(x, 9):g}")


def n(x: float) -> str:
    """Two decimals at most, and no "-0"."""
    return f"{round(x, 2) + 0.0:g}"
