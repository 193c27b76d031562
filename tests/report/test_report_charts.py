"""Positions worked out by hand: a row is 100 percent wide, a chart 340 by 170 with its plot at
x 44 to 330 and y 10 to 146."""

import math
import re

import pytest

from malt_jax.report import charts, svg
from malt_jax.report.charts import Line


def attributes(picture: str, tag: str, kind: str) -> list[dict[str, str]]:
    matches = re.findall(rf'<{tag} class="{kind}[^"]*" ([^>]*?)/?>', picture)
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', text)) for text in matches]


def test_interval_row_puts_dot_and_whisker_where_the_fractions_say() -> None:
    scale = svg.Scale(0.5, 0.9, 0, 100)
    picture = charts.interval_row(scale, 0.6, (0.55, 0.7), "sa 60%")
    (whisker,) = attributes(picture, "line", "whisker")
    (dot,) = attributes(picture, "circle", "dot")
    assert (whisker["x1"], whisker["x2"], dot["cx"]) == ("12.5%", "50%", "25%")
    grid = [line["x1"] for line in attributes(picture, "line", "grid")]
    assert grid == ["0%", "25%", "50%", "75%", "100%"]


@pytest.mark.parametrize(
    ("low", "high", "whole", "ticks"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.11, 0.24, False, [-0.1, 0, 0.1, 0.2]),
        (0.53, 0.82, False, [0.6, 0.7, 0.8]),
        (0.0, 2.24, True, [0, 1, 2]),
        (1.0, 300.0, True, [100, 200, 300]),
    ],
)
def test_ticks_are_round(low: float, high: float, whole: bool, ticks: list[float]) -> None:
    assert svg.Scale(low, high, 0, 1, whole).ticks == pytest.approx(ticks)


def test_percent_scale_keeps_a_margin_inside_its_bounds() -> None:
    assert svg.percent_scale([0.4, 0.8]).low == pytest.approx(0.35)
    bounded = svg.percent_scale([0.4, 1.0], 0, 1)
    assert (bounded.low, bounded.high) == pytest.approx((0.325, 1.0))


def test_one_value_alone_still_has_a_scale() -> None:
    assert svg.percent_scale([0.5]).at(0.5) == pytest.approx(50)


def test_flow_row_grows_from_the_middle() -> None:
    lost, gained = attributes(charts.flow_row(10, 40, 80, "ma"), "rect", "bar")
    assert (lost["x"], lost["width"]) == ("43.75%", "6.25%")
    assert (gained["x"], gained["width"]) == ("50%", "25%")
    nothing = attributes(charts.flow_row(0, 0, 0, "ma"), "rect", "bar")
    assert [bar["width"] for bar in nothing] == ["0%", "0%"]


def test_histogram_bars_and_the_side_of_the_threshold() -> None:
    picture = charts.histogram((0, 0.25, 0.5, 0.75, 1), (4, 0, 2, 1), 0.5, "values")
    kinds = re.findall(r'class="bar (\w+)"', picture)
    # 0.5 itself is negative, so the bin [0.5, 0.75) holds both.
    assert kinds == ["low", "low", "middle", "high"]
    bars = attributes(picture, "rect", "bar")
    # Each bin is 286 / 4 = 71.5 wide with one unit off either side; 4.48 counts fill 136 units.
    assert (bars[0]["x"], bars[0]["width"]) == ("45", "69.5")
    assert [bar["height"] for bar in bars] == ["121.43", "0", "60.71", "30.36"]
    assert attributes(picture, "line", "zero")[0]["x1"] == "187"


def test_line_chart_spans_the_plot() -> None:
    picture = charts.line_chart([Line([(0, 0.0), (5, 0.25), (10, 1.0)])], "accuracy", 0, 1)
    assert 'points="44,146 187,112 330,10"' in picture
    assert "kept" not in picture


def test_line_chart_shows_a_held_out_series_on_the_same_axes_and_the_kept_step() -> None:
    lines = [Line([(0, 0.0), (10, 1.0)]), Line([(5, 0.25), (10, 0.25)], "other", dots=True)]
    picture = charts.line_chart(lines, "x", 0, 1, kept=5)
    assert '<polyline class="line" points="44,146 330,10"' in picture
    assert '<polyline class="line other" points="187,112 330,112"' in picture
    assert [dot["cx"] for dot in attributes(picture, "circle", "dot other")] == ["187", "330"]
    assert attributes(picture, "line", "kept")[0]["x1"] == "187"


def test_line_chart_of_one_or_equal_points_is_drawn() -> None:
    assert 'points="44,78"' in charts.line_chart([Line([(1, 0.7)])], "loss")
    assert 'points="44,78 330,78"' in charts.line_chart([Line([(1, 0.7), (2, 0.7)])], "loss")


def test_a_lone_evaluation_lies_among_the_steps_that_were_taken() -> None:
    """It had an axis of its own, from its step to the next, and from -0.5 to 0.5."""
    picture = charts.line_chart([Line([(20, 0.017)], "other", dots=True)], "kl", across=(1, 39))
    (dot,) = attributes(picture, "circle", "dot")
    assert (dot["cx"], dot["cy"]) == ("187", "78")
    assert re.findall(r'text-anchor="end">([^<]*)<', picture) == ["0", "0.01", "0.02", "0.03"]


def test_split_row_puts_what_was_gained_one_after_another() -> None:
    picture = charts.split_row(0.02, [(0.01, "quiet"), (0.03, "high")], 0.04, "a to b")
    bars = attributes(picture, "rect", "bar")
    assert [(bar["x"], bar["width"]) for bar in bars] == [
        ("25%", "25%"),
        ("50%", "12.5%"),
        ("62.5%", "37.5%"),
    ]


def test_sweep_chart_has_a_tick_a_value_and_the_main_system_across() -> None:
    points = [(2.0, 0.6, (0.55, 0.65)), (3.0, 0.7, (0.65, 0.75)), (5.0, 0.7, (0.65, 0.75))]
    picture = charts.sweep_chart(points, 0.65, "n")
    ticks = re.findall(r'text-anchor="middle">([^<]*)<', picture)
    assert ticks == ["2", "3", "5"]
    # 55 to 75 percent with 1.2 to spare on either side: 65 is half way between y 146 and 10.
    assert attributes(picture, "line", "kept")[0]["y1"] == "78"
    # 1.82 to 5.18 over 286 units from 44.
    across = [dot["cx"] for dot in attributes(picture, "circle", "dot")]
    assert across == ["59.32", "144.44", "314.68"]


def test_logarithmic_ticks_are_round_and_few() -> None:
    scale = svg.LogScale(150, 6000, 0, 100)
    assert scale.ticks == [200, 500, 1000, 2000, 5000]
    assert scale.at(150) == 0
    assert scale.at(6000) == pytest.approx(100)
    assert scale.at(math.sqrt(150 * 6000)) == pytest.approx(50)
    assert svg.LogScale(3, 30_000, 0, 100).ticks == [10, 100, 1000, 10_000]


def test_thin_takes_means_of_equal_runs() -> None:
    points = [(float(i), float(i % 2)) for i in range(1, 401)]
    thinned = charts.thin(points)
    assert len(thinned) == 200
    assert thinned[0] == (1.5, 0.5)
    assert charts.thin(points[:200]) == points[:200]


def test_labels_are_escaped() -> None:
    for picture in (
        charts.bar_row(0.5, '"><script>'),
        charts.line_chart([Line([(1, 1)])], '"><script>'),
    ):
        assert "<script>" not in picture
        assert "&#34;&gt;&lt;script&gt;" in picture
