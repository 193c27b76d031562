"""comparison.json: what a suite of runs, or several work directories, came to beside each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from malt_jax.report.records import Flow, Interval, System

GROUPS = {
    "systems": "Systems",
    "ablations": "Ablations",
    "sweeps": "Sweeps",
    "transfer": "Other questions",
    "runs": "Runs",
}


@dataclass(frozen=True)
class Against:
    """The main system's accuracy minus a row's, on the same `n` questions."""

    difference: float
    ci95: Interval
    n: int
    p_mcnemar: float | None


@dataclass(frozen=True)
class Row(System):
    """One row. `paper` is what the paper reports, `likeness` mean and standard deviation over the
    paper's four subsets of 100 questions; None where there is none, as in the main row's
    `against`."""

    title: str
    group: str
    variant: str
    paper: float | None
    likeness: tuple[float, float] | None
    against: Against | None


@dataclass(frozen=True)
class Vote:
    """The single agent's majority vote over `k` samples; `tokens` are a question's, on average."""

    k: int
    accuracy: float
    ci95: Interval
    tokens: float


@dataclass(frozen=True)
class EqualCompute:
    """`system` minus the single agent's vote that spends at least as many tokens."""

    system: str
    tokens: float
    vote: Vote
    difference: float
    ci95: Interval


@dataclass(frozen=True)
class AtK:
    """Over `k` samples: the share of questions with a right one among them, and the vote's
    accuracy."""

    k: int
    passed: float
    majority: float


@dataclass(frozen=True)
class Split:
    """Where a gain comes from, as fractions of all questions: of the answers that are right now,
    those that could not be read before and those that were wrong; less the right ones lost."""

    before: str
    after: str
    gain: float
    became_parseable: float
    became_right: float
    lost: float

    @property
    def largest(self) -> float:
        """The longer of its bar's two sides."""
        return max(self.lost, self.became_parseable + self.became_right)


@dataclass(frozen=True)
class Critique:
    """The trained refiner's accuracy with critiques of one kind: own, other or none."""

    kind: str
    accuracy: float
    ci95: Interval


@dataclass(frozen=True)
class Power:
    """`questions` are what 80% power takes to show `difference` where a share `discordant` of the
    questions differ; there are `have`."""

    discordant: float
    difference: float
    questions: int
    have: int


@dataclass(frozen=True)
class Comparison:
    """comparison.json. What it does not hold is empty or None."""

    suite: str
    main: str
    rows: tuple[Row, ...]
    voting: tuple[Vote, ...]
    equal_compute: EqualCompute | None
    at_k: Mapping[str, tuple[AtK, ...]]
    flows: tuple[Flow, ...]
    splits: tuple[Split, ...]
    critiques: tuple[Critique, ...]
    power: Power | None
    commands: Mapping[str, str]

    @property
    def main_row(self) -> Row | None:
        """The row that the others are compared with, if the suite came so far."""
        return next((row for row in self.rows if row.name == self.main), None)

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """(heading, rows) in the order of `GROUPS`, then any others."""
        order = {group: i for i, group in enumerate(GROUPS)}
        rows = sorted(self.rows, key=lambda row: (order.get(row.group, len(order)), row.group))
        grouped = groupby(rows, key=lambda row: row.group)
        return [(GROUPS.get(group, group), list(members)) for group, members in grouped]

    @property
    def sweeps(self) -> dict[str, list[tuple[float, Row]]]:
        """Rows whose names are one word and a number each, as n_2 and n_4: by word, two or more."""
        found: dict[str, list[tuple[float, Row]]] = {}
        for row in self.rows:
            parts = re.fullmatch(r"(.+)_(\d+(?:\.\d+)?)", row.name)
            if row.group == "sweeps" and parts:
                found.setdefault(parts[1], []).append((float(parts[2]), row))
        by_size = {word: sorted(rows, key=lambda pair: pair[0]) for word, rows in found.items()}
        return {word: rows for word, rows in by_size.items() if len(rows) > 1}

    @property
    def plotted(self) -> list[Row]:
        """The rows of the compute plot, which need tokens to stand on its logarithmic axis."""
        rows = [row for row in self.rows if row.group in ("systems", "runs")]
        return [row for row in rows if row.tokens_per_question > 0]

    @property
    def lacking(self) -> dict[str, str]:
        """The commands of rows that are not there."""
        there = {row.name for row in self.rows}
        return {name: line for name, line in self.commands.items() if name not in there}
