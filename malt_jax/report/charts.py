"""Charts as inline SVG.

Rows of a table are drawn in percent of their width and so fit any screen with their text unscaled.
A chart with two axes is drawn `svg.WIDTH` by `svg.HEIGHT`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from malt_jax.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    Scale,
    axes,
    chart,
    n,
    polyline,
    short,
    typeset,
)

ROW = 26


def interval_row(scale: Scale, value: float, ci95: Point, label: str, kind: str = "") -> Markup:
    """One row of a dot-and-interval plot; rows of one scale line up under each other."""
    low, high = (n(scale.at(x)) for x in ci95)
    middle = ROW // 2
    return _row(
        label,
        _grid(scale)
        + f'<line class="whisker {kind}" x1="{low}%" x2="{high}%" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot {kind}" cx="{n(scale.at(value))}%" cy="{middle}" r="5"/>',
    )


def axis_row(scale: Scale, suffix: str = "%", signed: bool = False) -> Markup:
    """The tick labels under the rows of `scale`, fractions shown times 100."""
    parts = []
    for tick in scale.ticks:
        text = f"{100 * tick:+g}" if signed and abs(tick) > 1e-9 else f"{100 * tick:g}"
        parts.append(
            f'<text class="tick" x="{n(scale.at(tick))}%" y="14" text-anchor="middle">'
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
        f'<rect class="bar {kind}" x="0" y="8" width="{n(100 * fraction)}%" height="10" rx="2"/>',
    )


def flow_row(lost: float, gained: float, largest: float, label: str) -> Markup:
    """Lost to the left of the middle and gained to the right; `largest` fills its half."""
    return split_row(lost, [(gained, "high")], largest, label)


def split_row(
    lost: float, gained: Sequence[tuple[float, str]], largest: float, label: str
) -> Markup:
    """Lost to the left of the middle, and to the right the parts of what was gained, one after
    another: (size, class) each; `largest` fills a half."""
    size = 50 / largest if largest else 0
    left = n(size * lost)
    bars = [f'<rect class="bar low" x="{n(50 - size * lost)}%" y="6" width="{left}%" height="14"/>']
    at = 50.0
    for part, kind in gained:
        bars.append(
            f'<rect class="bar {kind}" x="{n(at)}%" y="6" width="{n(size * part)}%" height="14"/>'
        )
        at += size * part
    bars.append(f'<line class="zero" x1="50%" x2="50%" y1="0" y2="{ROW}"/>')
    return _row(label, "".join(bars))


def histogram(
    edges: Sequence[float], counts: Sequence[int], threshold: float, label: str
) -> Markup:
    """Bars coloured by the side of `threshold` their values lie on; grey where a bin holds it."""
    x = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = Scale(0, max(*counts, 1) * 1.12, HEIGHT - BOTTOM, TOP, whole=True)
    parts = [axes(x, y)]
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        kind = "low" if high <= threshold else "high" if low > threshold + 1e-9 else "middle"
        left, right, top = x.at(low) + 1, x.at(high) - 1, y.at(count)
        parts.append(
            f'<rect class="bar {kind}" x="{n(left)}" y="{n(top)}" width="{n(right - left)}" '
            f'height="{n(y.start - top)}"><title>{low:g} to {high:g}: {count:,}</title></rect>'
        )
        if count and len(counts) <= 12:
            parts.append(
                f'<text class="tick" x="{n((left + right) / 2)}" y="{n(top - 3)}" '
                f'text-anchor="middle">{short(count)}</text>'
            )
    at = n(x.at(threshold))
    parts.append(f'<line class="zero" x1="{at}" x2="{at}" y1="{TOP:g}" y2="{n(y.start)}"/>')
    return chart(label, parts)


@dataclass(frozen=True)
class Line:
    """A series of a chart. `kind` is its class; with `dots` every point is marked, without them
    the last one."""

    points: Sequence[Point]
    kind: str = ""
    dots: bool = False


def line_chart(
    lines: Sequence[Line],
    label: str,
    *bounds: float,
    across: Point | None = None,
    kept: float | None = None,
    suffix: str = "",
) -> Markup:
    """Series over steps on one pair of axes; `bounds` (low, high) fix the upright one and `across`
    the other, `kept` is a step to mark, and `suffix` the unit."""
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    low, high = bounds or (min(ys), max(ys))
    if low == high:
        low, high = low - (abs(low) or 0.5), high + (abs(low) or 0.5)
    left, right = across or (min(xs), max(xs))
    x = Scale(left, max(right, left + 1), LEFT, WIDTH - RIGHT, whole=True)
    margin = 0 if bounds else (high - low) * 0.06
    y = Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    parts = [axes(x, y, suffix)]
    if kept is not None:
        at = n(x.at(kept))
        parts.append(f'<line class="kept" x1="{at}" x2="{at}" y1="{TOP:g}" y2="{n(y.start)}"/>')
    for line in lines:
        parts.append(polyline([(x.at(a), y.at(b)) for a, b in line.points], line.kind))
        marked = line.points if line.dots else line.points[-1:]
        parts += [
            f'<circle class="{" ".join(["dot", *line.kind.split()])}" cx="{n(x.at(a))}" '
            f'cy="{n(y.at(b))}" r="2.5"/>'
            for a, b in marked
        ]
    return chart(label, parts)


def sweep_chart(
    points: Sequence[tuple[float, float, Point]], main: float | None, label: str
) -> Markup:
    """Accuracies with intervals over a setting's values, in percent; `main` is the accuracy of the
    main system, a dashed line."""
    xs, ys, intervals = zip(*points, strict=True)
    every = [100 * y for pair in intervals for y in pair] + [100 * y for y in ys]
    every += [] if main is None else [100 * main]
    margin = (max(every) - min(every)) * 0.06 or 1.0
    side = (xs[-1] - xs[0]) * 0.06
    x = Scale(xs[0] - side, xs[-1] + side, LEFT, WIDTH - RIGHT)
    y = Scale(min(every) - margin, max(every) + margin, HEIGHT - BOTTOM, TOP)
    parts = [axes(_Only(x.low, x.high, x.start, x.end, values=xs), y, "%")]
    if main is not None:
        at = n(y.at(100 * main))
        parts.append(f'<line class="kept" x1="{n(x.start)}" x2="{n(x.end)}" y1="{at}" y2="{at}"/>')
    parts.append(polyline([(x.at(a), y.at(100 * b)) for a, b in zip(xs, ys, strict=True)]))
    for a, b, pair in points:
        low, high = (n(y.at(100 * bound)) for bound in pair)
        across = n(x.at(a))
        parts.append(
            f'<line class="whisker" x1="{across}" x2="{across}" y1="{low}" y2="{high}"/>'
            f'<circle class="dot malt" cx="{across}" cy="{n(y.at(100 * b))}" r="4"/>'
        )
    return chart(label, parts)


@dataclass(frozen=True)
class _Only(Scale):
    """A scale with ticks at the values that were tried."""

    values: Sequence[float] = ()

    @property
    def ticks(self) -> list[float]:
        return list(self.values)


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
        f'<line class="{"zero" if abs(tick) < 1e-9 else "grid"}" x1="{n(scale.at(tick))}%" '
        f'x2="{n(scale.at(tick))}%" y1="0" y2="{ROW}"/>'
        for tick in scale.ticks
    )
