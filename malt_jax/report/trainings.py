"""What a phase of training wrote in `metrics.jsonl`, and the charts of it."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malt_jax.learn.phases import PHASES
from malt_jax.report.charts import Line, thin
from malt_jax.report.svg import Point, typeset

# The charts in their order: names of figures, and what they show.
_CHARTS = (
    (("loss",), "loss"),
    (("accuracy",), "reward accuracy"),
    (("margin",), "reward margin"),
    (("chosen_logp", "rejected_logp"), "log-probability, chosen and (dashed) rejected"),
    (("kl",), "KL to the reference (nats a token)"),
    (("entropy",), "entropy of what is sampled (nats a token)"),
    (("ratio_deviation", "clipped"), "mean |ratio - 1| and (dashed) share of tokens clipped"),
)
_FIGURES = [name for names, _ in _CHARTS for name in names]

Series = Mapping[str, tuple[Point, ...]]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A chart of one phase: `ends` says where its series begin and end."""

    shows: str
    ends: str
    lines: Sequence[Line]
    bounds: tuple[float, ...]


@dataclass(frozen=True)
class Training:
    """One phase of one role. `series` maps figures to their (step, value) points, `held_out` the
    same of the evaluations on questions kept out of training. `kept` is the step whose adapter the
    phase returned, 0 if the one it began with, None where nothing was held out."""

    role: str
    phase: str
    series: Series
    held_out: Series
    steps: int
    kept: int | None

    @property
    def figures(self) -> list[Figure]:
        """The charts for which there are points."""
        return [
            _figure(self, names, shows)
            for names, shows in _CHARTS
            if any(name in self.series or name in self.held_out for name in names)
        ]


def panels(trainings: Sequence[Training]) -> list[list[tuple[Training, Figure]]]:
    """The charts of one phase, in rows: a row a role, or a row a figure where these are few."""
    by_role = [[(training, figure) for figure in training.figures] for training in trainings]
    if max(map(len, by_role), default=0) > 2:
        return by_role
    charts = [chart for row in by_role for chart in row]
    by_figure = [[chart for chart in charts if chart[1].shows == shows] for _, shows in _CHARTS]
    return [row for row in by_figure if row]


def _figure(training: Training, names: Sequence[str], shows: str) -> Figure:
    kinds = dict(zip(names, ("", "second"), strict=False))
    present = [name for name in names if name in training.series]
    lines = [Line(thin(training.series[name]), kinds[name]) for name in present]
    ends = [f"{training.series[x][0][1]:.3g} → {training.series[x][-1][1]:.3g}" for x in present]
    # Beside two series two more would be a tangle.
    held_out = training.held_out.get(names[0], ()) if len(names) == 1 else ()
    if held_out:
        lines.append(Line(held_out, "other", dots=True))
        # Where it began, if that was evaluated; its end always.
        shown = [f"{y:.3g}" for step, y in held_out if step in (0, held_out[-1][0])]
        ends.append(f"held out {' → '.join(shown)}")
    bounds = (0.0, 1.0) if names == ("accuracy",) else ()
    return Figure(shows, typeset(", ".join(ends)), lines, bounds)


def read_trainings(workdir: Path) -> tuple[Training, ...]:
    """Every phase of `workdir` that wrote figures, by role and in the order of `PHASES`.

    Raises:
      ValueError: a line is not a JSON object with a step.
    """
    paths = workdir.glob("checkpoints/*/*/metrics.jsonl")
    order = sorted(paths, key=lambda path: (path.parts[-3], _place(path.parts[-2])))
    return tuple(_read(path) for path in order)


def _place(phase: str) -> int:
    """Of phases that are no longer there, behind all others."""
    return list(PHASES).index(phase) if phase in PHASES else len(PHASES)


def _read(path: Path) -> Training:
    """A line a step or evaluation; a last line that a kill cut short is left out."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
            rows.append(row)
        except (KeyError, TypeError, ValueError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(
                f"{path}:{number}: not a JSON object with a 'step'; delete the line"
            ) from error
    steps = [row for row in rows if not row.get("eval")]
    evaluations = [row for row in rows if row.get("eval")]
    return Training(
        role=path.parts[-3],
        phase=path.parts[-2],
        series=_series(whole(steps)),
        held_out=_series(evaluations),
        steps=len(steps),
        kept=next((row["step"] for row in reversed(evaluations) if row.get("best")), None),
    )


def whole(steps: Sequence[Row]) -> list[Row]:
    """The steps, where one on much fewer tokens than the others (what was left of an epoch's
    examples) is joined with the step before it: its mean is over a few examples and stood out of
    the curve. Figures are weighted by the steps' `tokens`; where these are unknown, every step
    stands."""
    counts = [row["tokens"] for row in steps if row.get("tokens")]
    least = 0.75 * statistics.median(counts) if counts else 0.0
    joined: list[Row] = []
    for row in steps:
        if joined and joined[-1].get("tokens") and 0 < (row.get("tokens") or 0) < least:
            joined[-1] = _joined(joined[-1], row)
        else:
            joined.append(row)
    return joined


def _joined(a: Row, b: Row) -> Row:
    """Two steps as one, at the place of the later."""
    together = a["tokens"] + b["tokens"]
    means = {
        name: (a["tokens"] * a[name] + b["tokens"] * b[name]) / together
        for name in _FIGURES
        if a.get(name) is not None and b.get(name) is not None
    }
    return {**a, **means, "step": b["step"], "tokens": together}


def _series(rows: Sequence[Row]) -> dict[str, tuple[Point, ...]]:
    """Points by figure; null is a figure that was not finite."""
    points = {
        key: tuple((row["step"], row[key]) for row in rows if row.get(key) is not None)
        for key in _FIGURES
    }
    return {key: of_key for key, of_key in points.items() if of_key}
