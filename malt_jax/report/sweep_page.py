"""A sweep's outcomes: a table, best first, and for each swept number a plot of the best of each
value."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from malt_jax.report import described
from malt_jax.report.charts import sweep_chart
from malt_jax.report.headline import bounds, pct, points
from malt_jax.types import main_system

Point = Mapping[str, str]
Difference = Mapping[str, Any]
"""A `difference` of accuracies on the same questions, with its `ci95`."""


@dataclass(frozen=True)
class Row:
    """One job: its settings, its main system with that system's score of `eval/results.json`, the
    best untrained system there (`baseline`, empty if there is none) with its accuracy, and the main
    system minus it and minus that of the sweep's first job; None where they share no questions."""

    point: Point
    system: str
    score: Mapping[str, Any]
    baseline: str
    baseline_accuracy: float
    over_baseline: Difference | None
    over_first: Difference | None


def row(point: Point, results: Mapping[str, Any], over_first: Difference | None) -> Row:
    """A job's row, from its `results.json`."""
    systems, scores = described.by_name(results), results["systems"]
    main = main_system(list(systems.values())).name
    untrained = [name for name, system in systems.items() if name in scores and not system.trained]
    rivals = [name for name in untrained if name != main]
    best = max(rivals, key=lambda name: scores[name]["accuracy"], default="")
    return Row(
        point,
        main,
        scores[main],
        best,
        scores[best]["accuracy"] if best else 0.0,
        _paired(results.get("paired", ()), main, best),
        over_first,
    )


def _paired(pairs: Sequence[Mapping[str, Any]], a: str, b: str) -> Difference | None:
    """The stored difference a - b, whichever way round it stands."""
    for pair in pairs:
        low, high = pair["ci95"]
        if (pair["a"], pair["b"]) == (a, b):
            return pair
        if (pair["a"], pair["b"]) == (b, a):
            return {"difference": -pair["difference"], "ci95": [-high, -low]}
    return None


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
    keys = list(dict.fromkeys(key for row in rows for key in row.point))
    head = [*keys, "system", "accuracy", "95% interval", "best untrained", "minus it"]
    head += ["minus the first job", "questions", "tokens a question"]
    body = []
    for row in sorted(rows, key=lambda row: -row.score["accuracy"]):
        score = row.score
        tokens = (score["tokens"]["prompt"] + score["tokens"]["completion"]) / score["n"]
        body.append(
            [
                *(row.point.get(key, "") for key in keys),
                row.system,
                pct(score["accuracy"]),
                bounds(score["ci95"]),
                f"{row.baseline} {pct(row.baseline_accuracy)}" if row.baseline else "–",
                _difference(row.over_baseline),
                _difference(row.over_first),
                str(score["n"]),
                f"{tokens:.0f}",
            ]
        )
    return head, body


def _difference(pair: Difference | None) -> str:
    return f"{points(pair['difference'])} ({bounds(pair['ci95'])})" if pair else "–"


def _plots(rows: Sequence[Row]) -> list[Markup]:
    figure = Markup("<figure><figcaption><b>{}</b>: the best of each value</figcaption>{}</figure>")
    figures = []
    for key in dict.fromkeys(key for row in rows for key in row.point):
        best: dict[float, Mapping[str, Any]] = {}
        for row in rows:
            value, score = _number(row.point.get(key, "")), row.score
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
        drawn = [(x, best[x]["accuracy"], tuple(best[x]["ci95"])) for x in sorted(best)]
        figures.append(figure.format(name, sweep_chart(drawn, None, f"Accuracy by {name}")))
    return figures


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
