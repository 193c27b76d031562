"""A sweep's outcomes: a table, best first, and for each swept number a plot of the best of each
value."""

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from malt_jax.report.charts import sweep_chart

Point = Mapping[str, str]
Row = tuple[Point, str, Mapping[str, Any]]
"""The settings of one job, its main system, and that system's score of `eval/results.json`."""

_PAGE = Markup("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sweep {name}</title>
<style>{style}</style>
<h1>Sweep {name}</h1>
<table>{head}{body}</table>
<div class="multiples">{plots}</div>
</html>
""")


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    head, body = _cells(rows)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(name: str, rows: Sequence[Row]) -> str:
    """The table and the plots as an HTML page that stands alone."""
    head, body = _cells(rows)
    files = resources.files("malt_jax.report").joinpath("page")
    style = "".join(
        files.joinpath(sheet).read_text(encoding="utf-8") for sheet in ("report.css", "figures.css")
    )
    plots = Markup("").join(_plots(rows))
    return _PAGE.format(
        name=name,
        style=Markup(style),
        head=_html("th", [head]),
        body=_html("td", body),
        plots=plots,
    )


def _html(kind: str, lines: Sequence[Sequence[str]]) -> Markup:
    cell = Markup(f"<{kind}>{{}}</{kind}>")
    return Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(cell.format(text) for text in line))
        for line in lines
    )


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    keys = list(dict.fromkeys(key for point, _, _ in rows for key in point))
    head = [*keys, "system", "accuracy", "95% interval", "questions", "tokens a question"]
    body = []
    for point, system, score in sorted(rows, key=lambda row: -row[2]["accuracy"]):
        low, high = (100 * bound for bound in score["ci95"])
        tokens = sum(score["tokens"].values()) / score["n"]
        body.append(
            [
                *(point.get(key, "") for key in keys),
                system,
                f"{100 * score['accuracy']:.1f}%",
                f"{low:.1f} to {high:.1f}",
                str(score["n"]),
                f"{tokens:.0f}",
            ]
        )
    return head, body


def _plots(rows: Sequence[Row]) -> list[Markup]:
    figure = Markup("<figure><figcaption><b>{}</b>: the best of each value</figcaption>{}</figure>")
    figures = []
    for key in dict.fromkeys(key for point, _, _ in rows for key in point):
        best: dict[float, Mapping[str, Any]] = {}
        for point, _, score in rows:
            value = _number(point.get(key, ""))
            if value is not None and score["accuracy"] >= best.get(value, score)["accuracy"]:
                best[value] = score
        if len(best) < 2:
            continue
        name = key
        if min(best) > 0 and max(best) > 20 * min(best):
            name, best = (
                f"log10 {key}",
                {round(math.log10(x), 2): score for x, score in best.items()},
            )
        points = [(x, best[x]["accuracy"], tuple(best[x]["ci95"])) for x in sorted(best)]
        figures.append(figure.format(name, sweep_chart(points, None, f"Accuracy by {name}")))
    return figures


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
