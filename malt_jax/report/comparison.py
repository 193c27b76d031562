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
    "seeds": "Other seeds",
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
    """`questions` are what 80% power takes to show `difference` to the system `against` where a
    share `discordant` of the questions differ; there are `have`."""

    against: str
    discordant: float
    difference: float
    questions: int
    have: int


@dataclass(frozen=True)
class Seed:
    """The main system minus the one of this name over several seeds; the interval resamples seeds
    and questions."""

    name: str
    difference: float
    ci95: Interval


@dataclass(frozen=True)
class Comparison:
    """comparison.json. What it does not hold is empty or None. `source` says where the paper's
    figures are from, `seeds` are over `seed_runs` runs. It was made of `inputs` (see `freshness`)
    by `command`."""

    suite: str
    main: str
    source: str
    rows: tuple[Row, ...]
    voting: tuple[Vote, ...]
    equal_compute: EqualCompute | None
    at_k: Mapping[str, tuple[AtK, ...]]
    flows: tuple[Flow, ...]
    splits: tuple[Split, ...]
    critiques: tuple[Critique, ...]
    power: Power | None
    seeds: tuple[Seed, ...]
    seed_runs: int
    commands: Mapping[str, str]
    inputs: Mapping[str, str]
    command: str

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
        """Rows whose names are a word and a number, as n_2 and n_4, by word and sorted. Of n_2 and
        n_2_mv, which is its vote, only what is like the main row."""
        found: dict[tuple[str, str], list[tuple[float, Row]]] = {}
        for row in self.rows:
            parts = re.fullmatch(r"(.+?)_(\d+(?:\.\d+)?)((?:_[a-z]+)*)", row.name)
            if row.group == "sweeps" and parts:
                found.setdefault((parts[1], parts[3]), []).append((float(parts[2]), row))
        like = "_mv" if self.main.endswith("_mv") else ""
        chosen = {word: found.get((word, like)) or found.get((word, "")) for word, _ in found}
        return {
            word: sorted(rows, key=lambda pair: pair[0]) for word, rows in chosen.items() if rows
        }

    @property
    def differences(self) -> list[Row]:
        """The rows but for the systems that were compared with the main one; where there is a vote
        and a single pass of a group's members, those that are like the main row."""
        found = []
        for _, rows in self.groups:
            compared = [row for row in rows if row.against and row.group != "systems"]
            like = [r for r in compared if r.name.endswith("_mv") == self.main.endswith("_mv")]
            found += like or compared
        return found

    @property
    def plotted(self) -> list[Row]:
        """The rows of the compute plot, which need tokens to stand on its logarithmic axis."""
        rows = [row for row in self.rows if row.group in ("systems", "runs")]
        return [row for row in rows if row.tokens_per_question > 0]

    @property
    def lacking(self) -> dict[str, str]:
        """The commands of rows and variants that are not there."""
        there = {name for row in self.rows for name in (row.name, row.variant)}
        return {name: line for name, line in self.commands.items() if name not in there}

    @property
    def by_command(self) -> dict[str, list[str]]:
        """The names of the rows and variants that each command makes."""
        found: dict[str, list[str]] = {}
        for name, line in self.commands.items():
            found.setdefault(line, []).append(name)
        return found
