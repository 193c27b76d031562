"""Charts as inline SVG, coloured by class, so that the style sheet's themes hold for them.

Rows of a table are drawn in percent of their width and so fit any screen with their text unscaled.
A chart with two axes is drawn in its own units, `WIDTH` by `HEIGHT`, and scales as a whole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 340.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 10.0, 10.0, 24.0
ROW = 26

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
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [i * self.step for i in range(first, last + 1)]


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


def interval_row(scale: Scale, value: float, ci95: Point, label: str, kind: str = "") -> Markup:
    """One row of a dot-and-interval plot; rows of one scale line up under each other."""
    low, high = (_n(scale.at(x)) for x in ci95)
    middle = ROW // 2
    return _row(
        label,
        _grid(scale)
        + f'<line class="whisker {kind}" x1="{low}%" x2="{high}%" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot {kind}" cx="{_n(scale.at(value))}%" cy="{middle}" r="5"/>',
    )


def axis_row(scale: Scale, suffix: str = "%", signed: bool = False) -> Markup:
    """The tick labels under the rows of `scale`, fractions shown times 100."""
    parts = []
    for tick in scale.ticks:
        text = f"{100 * tick:+g}" if signed and abs(tick) > 1e-9 else f"{100 * tick:g}"
        parts.append(
            f'<text class="tick" x="{_n(scale.at(tick))}%" y="14" text-anchor="middle">'
            f"{typeset(text)}{suffix}</text>"
        )
    body = Markup("".join(parts))
    return Markup(
        '<svg class="row axis" width="100%" height="20" aria-hidden="true">{}</svg>'
    ).format(body)


def bar_row(fraction: float, label: str, kind: str = "") -> Markup:
    """A bar over `fraction` of the row."""
    return _row(
        label,
        '<rect class="track" x="0" y="8" width="100%" height="10" rx="2"/>'
        f'<rect class="bar {kind}" x="0" y="8" width="{_n(100 * fraction)}%" height="10" rx="2"/>',
    )


def flow_row(lost: float, gained: float, largest: float, label: str) -> Markup:
    """Lost to the left of the middle and gained to the right; `largest` fills its half."""
    left, right = (_n(50 * x / largest if largest else 0) for x in (lost, gained))
    return _row(
        label,
        f'<rect class="bar low" x="{_n(50 - float(left))}%" y="6" width="{left}%" height="14"/>'
        f'<rect class="bar high" x="50%" y="6" width="{right}%" height="14"/>'
        f'<line class="zero" x1="50%" x2="50%" y1="0" y2="{ROW}"/>',
    )


def histogram(
    edges: Sequence[float], counts: Sequence[int], threshold: float, label: str
) -> Markup:
    """Bars coloured by the side of `threshold` their values lie on; grey where a bin holds it."""
    x = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = Scale(0, max(*counts, 1) * 1.12, HEIGHT - BOTTOM, TOP, whole=True)
    parts = [_axes(x, y)]
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        kind = "low" if high <= threshold else "high" if low > threshold + 1e-9 else "middle"
        left, right, top = x.at(low) + 1, x.at(high) - 1, y.at(count)
        parts.append(
            f'<rect class="bar {kind}" x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" '
            f'height="{_n(y.start - top)}"><title>{low:g} to {high:g}: {count:,}</title></rect>'
        )
        if count and len(counts) <= 12:
            parts.append(
                f'<text class="tick" x="{_n((left + right) / 2)}" y="{_n(top - 3)}" '
                f'text-anchor="middle">{_short(count)}</text>'
            )
    at = _n(x.at(threshold))
    parts.append(f'<line class="zero" x1="{at}" x2="{at}" y1="{TOP:g}" y2="{_n(y.start)}"/>')
    return _chart(label, parts)


def line_chart(
    points: Sequence[Point], label: str, *bounds: float, held_out: Sequence[Point] = ()
) -> Markup:
    """One series over its steps, and the held-out one beside it; `bounds` (low, high) fix the
    vertical axis."""
    xs, ys = zip(*points, strict=True)
    every = [y for _, y in (*points, *held_out)]
    low, high = bounds or (min(every), max(every))
    if low == high:
        low, high = low - 0.5, high + 0.5
    right = max(*xs, *(a for a, _ in held_out), min(xs) + 1)
    x = Scale(min(xs), right, LEFT, WIDTH - RIGHT, whole=True)
    margin = 0 if bounds else (high - low) * 0.06
    y = Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)

    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{_n(x.at(a))},{_n(y.at(b))}" for a, b in points)

    last = f'cx="{_n(x.at(xs[-1]))}" cy="{_n(y.at(ys[-1]))}"'
    return _chart(
        label,
        [
            _axes(x, y),
            f'<polyline class="line" points="{path(points)}"/>',
            f'<circle class="dot malt" {last} r="3"/>',
            *([f'<polyline class="line other" points="{path(held_out)}"/>'] if held_out else []),
            *(
                f'<circle class="dot" cx="{_n(x.at(a))}" cy="{_n(y.at(b))}" r="2.5"/>'
                for a, b in held_out
            ),
        ],
    )


def thin(points: Sequence[Point], limit: int = 200) -> list[Point]:
    """At most `limit` points, means of equal runs of neighbours (the last run may be shorter)."""
    size = math.ceil(len(points) / limit)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(a for a, _ in r) / len(r), sum(b for _, b in r) / len(r)) for r in runs]


def _row(label: str, body: str) -> Markup:
    return Markup(
        '<svg class="row" width="100%" height="{}" role="img" aria-label="{}">{}</svg>'
    ).format(ROW, label, Markup(body))


def _grid(scale: Scale) -> str:
    return "".join(
        f'<line class="{"zero" if abs(tick) < 1e-9 else "grid"}" x1="{_n(scale.at(tick))}%" '
        f'x2="{_n(scale.at(tick))}%" y1="0" y2="{ROW}"/>'
        for tick in scale.ticks
    )


def _axes(x: Scale, y: Scale) -> str:
    parts = []
    for tick in y.ticks:
        at = _n(y.at(tick))
        parts.append(
            f'<line class="grid" x1="{LEFT:g}" x2="{_n(WIDTH - RIGHT)}" y1="{at}" y2="{at}"/>'
            f'<text class="tick" x="{_n(LEFT - 6)}" y="{_n(y.at(tick) + 3.5)}" '
            f'text-anchor="end">{_short(tick)}</text>'
        )
    for tick in x.ticks:
        parts.append(
            f'<text class="tick" x="{_n(x.at(tick))}" y="{_n(HEIGHT - 8)}" '
            f'text-anchor="middle">{_short(tick)}</text>'
        )
    return "".join(parts)


def _chart(label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _short(x: float) -> str:
    return typeset(f"{x / 1000:g}k" if abs(x) >= 10_000 else f"{round(x, 9):g}")


def _n(x: float) -> str:
    """Two decimals at most, and no "-0"."""
    return f"{round(x, 2) + 0.0:g}"
