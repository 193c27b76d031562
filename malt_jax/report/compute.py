"""Accuracy against tokens a question, every system with its label.

The plot is laid out once for wide screens and once for narrow ones, and not scaled much: labels
that keep apart on the one would run into each other on the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from markupsafe import Markup, escape

from malt_jax.report.svg import LogScale, Point, Scale, axes, chart, n, polyline

LEFT, RIGHT, TOP, BOTTOM = 44.0, 14.0, 14.0, 42.0
# Of the page's small text in the widest of the usual system fonts, in px.
LETTER, LINE = 6.9, 14.0


@dataclass(frozen=True)
class Mark:
    """A system: mean tokens a question, accuracy and its interval as fractions."""

    tokens: float
    accuracy: float
    ci95: Point
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle in a chart's units; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    def shared(self, other: "Box") -> float:
        """The area that both cover."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, across) * max(0.0, down)

    def gap(self, place: Point) -> float:
        """The distance to a point."""
        a, b = place
        across = max(self.x - a, a - self.x - self.width, 0.0)
        return math.hypot(across, max(self.y - b, b - self.y - self.height, 0.0))


def compute_plot(
    marks: Sequence[Mark], curve: Sequence[Mark], size: Point, label: str, kind: str = ""
) -> Markup:
    """Points with interval bars and labels, over a curve with its band.

    Args:
        marks: the systems; those of kind "malt" are drawn over the others.
        curve: one agent's vote by number of samples, which its `text` names; sorted by tokens.
        size: width and height in px.
    """
    width, height = size
    x, y = _scales([*marks, *curve], width, height)

    def at(mark: Mark) -> Point:
        return x.at(mark.tokens), y.at(100 * mark.accuracy)

    places = [at(mark) for mark in marks]
    frame = Box(LEFT + 2, 0, width - LEFT - 4, y.start - 2)
    solid = [Box(a - 7, b - 7, 14, 14) for a, b in places]
    numbers = _numbers(curve, [at(mark) for mark in curve])
    solid += [box for _, box in numbers]
    thin = [_whisker(mark, x, y) for mark in marks]
    steps = [at(mark) for mark in curve]
    thin += [Box(min(a, c), min(b, d) - 1, abs(c - a), abs(d - b) + 2)
             for (a, b), (c, d) in pairwise(steps)]  # fmt: skip
    boxes = spread_labels(places, [mark.text for mark in marks], frame, solid, thin)
    order = sorted(range(len(marks)), key=lambda i: marks[i].kind)
    drawn = [_mark(marks[i], places[i], boxes[i], _whisker(marks[i], x, y)) for i in order]
    parts = [
        axes(x, y, "%"),
        f'<text class="tick" x="{n(x.end)}" y="{n(y.start + 34)}" text-anchor="end">'
        "tokens a question, read and generated</text>",
        *_curve(curve, x, y),
        *(part for mark in drawn for part in mark[:-1]),
        *(
            f'<text class="tick" x="{n(box.x + box.width / 2)}" y="{n(box.y + 11)}" '
            f'text-anchor="middle">{escape(text)}</text>'
            for text, box in numbers
        ),
        *(mark[-1] for mark in drawn),
    ]
    return chart(label, parts, width, height, f"compute {kind}")


def spread_labels(
    places: Sequence[Point],
    texts: Sequence[str],
    frame: Box,
    solid: Sequence[Box] = (),
    thin: Sequence[Box] = (),
) -> list[Box]:
    """A box for each text near its place: the nearest that lies in `frame` and covers neither a
    label before it nor anything `solid`, of lines (`thin`) as little as it can, and that does not
    look like another place's label."""
    done: dict[int, Box] = {}
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        done[i] = min(
            enumerate(_round(places[i], LETTER * len(texts[i]) + 4)),
            key=lambda ranked: (
                12 * ranked[0]
                + 1e6 * (ranked[1].shared(frame) < ranked[1].width * LINE * (1 - 1e-9))
                + 1e3 * sum(ranked[1].shared(other) for other in (*solid, *done.values()))
                + 3 * sum(ranked[1].shared(other) for other in thin)
                + 60 * sum(ranked[1].gap(p) < ranked[1].gap(places[i]) + 4 for p in places)
            ),
        )[1]
    return [done[i] for i in range(len(places))]


def _round(place: Point, width: float) -> list[Box]:
    """Where a label may stand, the nearest first: beside, above and below its point, and then in
    wider and wider rings."""
    a, b = place
    boxes = []
    for ring in range(10):
        down, across = 10 + 11 * ring, 10 + 9 * ring
        lefts = (a + across, a - across - width)
        if not ring:
            boxes += [Box(left, b - LINE / 2, width, LINE) for left in lefts]
        tops = (b - down - LINE + 3, b + down - 3)
        boxes += [
            Box(left, top, width, LINE) for top, left in product(tops, (a - width / 2, *lefts))
        ]
    return boxes


def _scales(marks: Sequence[Mark], width: float, height: float) -> tuple[LogScale, Scale]:
    tokens = [mark.tokens for mark in marks]
    lows, highs = zip(*(mark.ci95 for mark in marks), strict=True)
    margin = (max(highs) - min(lows)) * 8 or 5.0
    low, high = max(0.0, 100 * min(lows) - margin), min(100.0, 100 * max(highs) + margin)
    return (
        LogScale(min(tokens) / 1.25, max(tokens) * 1.25, LEFT, width - RIGHT),
        Scale(low, high, height - BOTTOM, TOP),
    )


def _whisker(mark: Mark, x: Scale, y: Scale) -> Box:
    low, high = (y.at(100 * bound) for bound in mark.ci95)
    return Box(x.at(mark.tokens) - 1, high, 2, low - high)


def _numbers(curve: Sequence[Mark], places: Sequence[Point]) -> list[tuple[str, Box]]:
    """The numbers of samples under their points, as many as have room beside each other."""
    labels: list[tuple[str, Box]] = []
    for mark, (a, b) in zip(curve, places, strict=True):
        width = LETTER * len(mark.text)
        if not labels or a - width / 2 > labels[-1][1].x + labels[-1][1].width + 8:
            labels.append((mark.text, Box(a - width / 2, b + 7, width, LINE)))
    return labels


def _curve(curve: Sequence[Mark], x: Scale, y: Scale) -> list[str]:
    if not curve:
        return []
    across = [x.at(mark.tokens) for mark in curve]
    low, high = ([y.at(100 * mark.ci95[i]) for mark in curve] for i in (0, 1))
    edge = [*zip(across, high, strict=True), *zip(across[::-1], low[::-1], strict=True)]
    middle = [(a, y.at(100 * mark.accuracy)) for a, mark in zip(across, curve, strict=True)]
    return [
        f'<polygon class="band" points="{" ".join(f"{n(a)},{n(b)}" for a, b in edge)}"/>',
        polyline(middle, "vote"),
        *(f'<circle class="dot vote" cx="{n(a)}" cy="{n(b)}" r="3"/>' for a, b in middle),
    ]


def _mark(mark: Mark, place: Point, box: Box, whisker: Box) -> list[str]:
    """A system: its interval, its point, its label on the side of the point, and a line to that
    where it is not at hand."""
    a, b = place
    kind, middle = escape(mark.kind), box.y + box.height / 2
    sides = {"start": box.x + 2, "end": box.x + box.width - 2, "middle": box.x + box.width / 2}
    side = "start" if box.x >= a else "end" if box.x + box.width <= a else "middle"
    tip = middle if side != "middle" else box.y + box.height * (middle < b)
    leader = []
    if abs(middle - b) > (5 if side != "middle" else 20):
        leader.append(
            f'<line class="leader" x1="{n(a)}" y1="{n(b)}" x2="{n(sides[side])}" y2="{n(tip)}"/>'
        )
    return [
        *leader,
        f'<line class="whisker {kind}" x1="{n(a)}" x2="{n(a)}" y1="{n(whisker.y)}" '
        f'y2="{n(whisker.y + whisker.height)}"/>',
        f'<circle class="dot {kind}" cx="{n(a)}" cy="{n(b)}" r="5">'
        f"<title>{escape(mark.text)}: {100 * mark.accuracy:.1f}%, "
        f"{mark.tokens:,.0f} tokens a question</title></circle>",
        f'<text class="label {kind}" x="{n(sides[side])}" y="{n(box.y + 11)}" '
        f'text-anchor="{side}">{escape(mark.text)}</text>',
    ]
