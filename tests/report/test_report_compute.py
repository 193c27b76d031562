"""The compute plot: where points and labels stand, worked out by hand, and that none overlap."""

import math
import re

import pytest
from planted_comparison import comparison

from malt_jax.report import plots
from malt_jax.report.compute import Box, Mark, compute_plot, spread_labels
from malt_jax.report.contract import parse_comparison

FRAME = Box(0, 0, 300, 300)


def overlaps(boxes: list[Box]) -> int:
    return sum(a.shared(b) > 0 for i, a in enumerate(boxes) for b in boxes[:i])


def test_shared_area_and_gap() -> None:
    box = Box(0, 0, 10, 10)
    assert box.shared(Box(6, 7, 10, 10)) == 12
    assert box.shared(Box(10, 0, 5, 5)) == 0
    assert box.gap((13, 14)) == 5
    assert box.gap((5, 5)) == 0


def test_a_lone_label_stands_beside_its_point_and_moves_left_at_the_edge() -> None:
    (right,) = spread_labels([(100, 100)], ["malt"], FRAME)
    (left,) = spread_labels([(290, 100)], ["malt"], FRAME)
    assert (right.x, right.y + right.height / 2) == (110, 100)
    assert left.x + left.width == 280


@pytest.mark.parametrize("count", [2, 6, 11])
def test_labels_of_points_that_lie_on_each_other_keep_apart(count: int) -> None:
    places = [(150.0 + i % 3, 150.0 + i % 2) for i in range(count)]
    solid = [Box(a - 7, b - 7, 14, 14) for a, b in places]
    boxes = spread_labels(places, [f"system {i}" for i in range(count)], FRAME, solid)
    assert overlaps(boxes) == 0
    assert not any(box.shared(other) for box in boxes for other in solid)
    assert all(box.shared(FRAME) == pytest.approx(box.width * box.height) for box in boxes)


def test_points_lie_by_the_logarithm_of_their_tokens() -> None:
    marks = [
        Mark(100, 0.5, (0.4, 0.6), "sa"),
        Mark(1000, 0.5, (0.4, 0.6), "ma"),
        Mark(10_000, 0.5, (0.4, 0.6), "malt", "malt"),
    ]
    svg = compute_plot(marks, [], (400, 300), "plot")
    across = sorted(float(x) for x in re.findall(r'class="dot \w*" cx="([\d.]+)"', svg))
    # From 100 / 1.25 to 10,000 * 1.25 over x 44 to 386; 1,000 lies half way.
    edge = 342 * math.log(1.25) / math.log(100 * 1.25**2)
    assert across == pytest.approx([44 + edge, 215, 386 - edge], abs=0.01)
    assert "polygon" not in svg


def test_the_curve_has_a_band_and_its_numbers() -> None:
    votes = [
        Mark(10.0**k, 0.4 + k / 10, (0.3 + k / 10, 0.5 + k / 10), str(2 * k)) for k in (1, 2, 3)
    ]
    svg = compute_plot([Mark(500, 0.6, (0.5, 0.7), "<malt>", "malt")], votes, (600, 300), "<plot>")
    assert svg.count("<polygon") == 1
    assert len(re.findall(r'class="dot vote"', svg)) == 3
    assert re.findall(r'text-anchor="middle">(\d)<', svg) == ["2", "4", "6"]
    assert "<malt>" not in svg
    assert "<plot>" not in svg


def test_both_layouts_of_a_crowded_suite_are_drawn_and_name_every_system() -> None:
    compared = parse_comparison(comparison())
    svg = plots.compute(compared)
    wide, narrow = svg.split("</svg>")[:2]
    titles = [row.title for row in compared.rows if row.group == "systems"]
    names = [row.name for row in compared.rows if row.group == "systems"]
    for part, texts in ((wide, titles), (narrow, names)):
        assert sorted(re.findall(r'class="label \w*"[^>]*>([^<]*)<', part)) == sorted(texts)
