"""The plots of a comparison, each with its caption."""

from markupsafe import Markup

from malt_jax.report.charts import Line, line_chart, sweep_chart
from malt_jax.report.comparison import Comparison
from malt_jax.report.compute import Mark, compute_plot
from malt_jax.report.headline import pct
from malt_jax.report.records import Settings

Captioned = tuple[str, str, Markup]
"""Whose figure, what it shows, and the figure."""

_WIDE, _NARROW = (1060.0, 440.0), (358.0, 420.0)


def compute(comparison: Comparison) -> Markup:
    """Accuracy against tokens, for wide screens with titles and for narrow ones with names; empty
    where no row says its tokens."""
    rows = comparison.plotted
    if not rows:
        return Markup("")
    votes = sorted(comparison.voting, key=lambda vote: vote.tokens)
    curve = [Mark(v.tokens, v.accuracy, v.ci95, str(v.k)) for v in votes if v.tokens > 0]
    said = ", ".join(
        f"{row.title} {pct(row.accuracy)} at {row.tokens_per_question:,.0f}" for row in rows
    )
    parts = []
    for size, kind in ((_WIDE, "wide"), (_NARROW, "narrow")):
        marks = [
            Mark(
                row.tokens_per_question,
                row.accuracy,
                row.ci95,
                _cut(row.title, 34) if kind == "wide" else _cut(row.name, 22),
                "malt" if row.name == comparison.main else "",
            )
            for row in rows
        ]
        label = f"Accuracy against tokens a question: {said}"
        parts.append(compute_plot(marks, curve, size, label, kind))
    return Markup("").join(parts)


def sweeps(comparison: Comparison, settings: Settings | None) -> list[Captioned]:
    """A small plot a swept setting, the main system at its own value among the others."""
    main, main_values = comparison.main_row, values_of(settings) if settings else {}
    accuracy = main.accuracy if main else None
    figures = []
    for word, rows in comparison.sweeps.items():
        tried = dict(rows)
        if main and word in main_values:
            tried.setdefault(main_values[word], main)
        if len(tried) > 1:
            order = sorted(tried.items(), key=lambda pair: pair[0])
            ends = ", ".join(f"{value:g}: {pct(row.accuracy)}" for value, row in order)
            points = [(value, row.accuracy, row.ci95) for value, row in order]
            plot = sweep_chart(points, accuracy, f"Accuracy by {word}; {ends}")
            figures.append((word, ends, plot))
    return figures


def values_of(settings: Settings) -> dict[str, float]:
    """The values that the main run itself has of what the suites sweep."""
    config = settings.config
    roles = config.get("roles", {}).values()
    values = {
        "n": max((role["branching"] for role in roles if "branching" in role), default=None),
        "theta": settings.threshold,
        "temperature": config.get("sample", {}).get("temperature"),
        "votes": config.get("eval", {}).get("votes"),
    }
    return {word: float(value) for word, value in values.items() if value is not None}


def at_k(comparison: Comparison) -> list[Captioned]:
    """By number of samples: how often one of them is right, and how often the vote is."""
    figures = []
    for name, points in comparison.at_k.items():
        if points:
            last = points[-1]
            ends = f"at k = {last.k}: vote {pct(last.majority)}, pass {pct(last.passed)}"
            lines = [
                Line([(p.k, 100 * p.passed) for p in points], "second"),
                Line([(p.k, 100 * p.majority) for p in points]),
            ]
            plot = line_chart(lines, f"{name} by samples; {ends}", suffix="%")
            figures.append((name, ends, plot))
    return figures


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
