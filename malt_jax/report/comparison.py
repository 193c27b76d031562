"""comparison.json: what a suite of runs, or several work directories, came to beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from malt_jax.report.records import EqualCompute, Flow, Interval, Score, Vote

GROUPS = {
    "systems": "Systems",
    "control": "Control",
    "ablations": "Ablations",
    "sweeps": "Sweeps",
    "transfer": "Other questions",
    "seeds": "Other seeds",
    "runs": "Runs",
}


@dataclass(frozen=True)
class Against:
    """The main system's accuracy minus a row's, on the same `n` questions. `p` is McNemar's, or
    over seeds Student's; `p_holm` is Holm's over all comparisons but the primary one."""

    difference: float
    ci95: Interval
    n: int
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Row(Score):
    """One row: a system (`system`) of a variant, or of the main run where `variant` is empty.

    `swept` is the setting that its variant sweeps, with its value; `paper` is what the paper
    reports, `likeness` mean and standard deviation over the paper's four subsets of 100 questions;
    None where there is none, as in the main row's `against`. `by_seed` are the accuracies of the
    seeds that the row is the mean of; counts and tokens are then sums over them."""

    title: str
    group: str
    variant: str
    swept: tuple[str, float] | None
    paper: float | None
    likeness: tuple[float, float] | None
    against: Against | None
    by_seed: Mapping[str, float]


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
    """The accuracy of the trained team's last role with critiques of one kind: own, other or
    none."""

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
class Primary:
    """The comparison that is named before all others: the main system minus `against`, the best of
    its `rivals` by the mean over `seeds`. `p_holm` is Holm's over the rivals; `verdict` is wins,
    loses or undecided."""

    against: str
    rivals: int
    seeds: int
    difference: float
    ci95: Interval
    p: float
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Failure:
    """A variant that could not be run, and what it raised."""

    title: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """comparison.json. What it does not hold is empty or None. `source` says where the paper's
    figures are from, `seeds` are over `seed_runs` runs. All figures are of one `split`; the test
    split was read `test_reads` times, by so many configurations. `done` are the variants that were
    evaluated and `failed` those that could not be run. It was made of `inputs` (see `freshness`) by
    `command`."""

    suite: str
    split: str
    test_reads: tuple[int, int]
    main: str
    primary: Primary | None
    source: str
    rows: tuple[Row, ...]
    voting: tuple[Vote, ...]
    equal_compute: tuple[EqualCompute, ...]
    at_k: Mapping[str, tuple[AtK, ...]]
    flows: tuple[Flow, ...]
    splits: tuple[Split, ...]
    critiques: tuple[Critique, ...]
    power: Power | None
    seeds: tuple[Seed, ...]
    seed_runs: int
    commands: Mapping[str, str]
    done: tuple[str, ...]
    failed: Mapping[str, Failure]
    inputs: Mapping[str, str]
    command: str

    @property
    def main_row(self) -> Row | None:
        """The row that the others are compared with, if the suite came so far."""
        return next((row for row in self.rows if row.name == self.main), None)

    @property
    def last_role(self) -> str:
        """The role that gives the main system's answer: the refiner, where that is not known."""
        roles = self.main_row.system.roles if self.main_row else ()
        return roles[-1] if roles else "refiner"

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """(heading, rows) in the order of `GROUPS`, then any others."""
        order = {group: i for i, group in enumerate(GROUPS)}
        rows = sorted(self.rows, key=lambda row: (order.get(row.group, len(order)), row.group))
        grouped = groupby(rows, key=lambda row: row.group)
        return [(GROUPS.get(group, group), list(members)) for group, members in grouped]

    @property
    def seed_names(self) -> list[str]:
        """The seeds that any row is the mean of, in order."""
        return list(dict.fromkeys(seed for row in self.rows for seed in row.by_seed))

    @property
    def rivals(self) -> list[Row]:
        """The other methods that the main system was compared with: what is untrained, or of a
        variant."""
        rows = [row for row in self.rows if row.group == "systems" and row.against]
        return [row for row in rows if row.variant or not row.system.trained]

    def _like_main(self, rows: Sequence[Row]) -> list[Row]:
        """Of rows, those that vote if the main system does, and else those that do not; all where
        there is none of these."""
        main = self.main_row
        voted = bool(main and main.system.voted)
        return [row for row in rows if row.system.voted == voted] or list(rows)

    @property
    def sweeps(self) -> dict[str, list[tuple[float, Row]]]:
        """The trained teams of swept settings: by setting, (value, row) sorted by value. Of a vote
        and a single pass, what is like the main row."""
        by_setting: dict[str, list[tuple[float, Row]]] = {}
        for row in self.rows:
            if row.group == "sweeps" and row.swept and row.system.trained:
                setting, value = row.swept
                by_setting.setdefault(setting, []).append((value, row))
        charts = {}
        for setting, points in by_setting.items():
            rows = self._like_main([row for _, row in points])
            charts[setting] = sorted(
                (point for point in points if point[1] in rows), key=lambda point: point[0]
            )
        return charts

    @property
    def differences(self) -> list[Row]:
        """The rows but for the systems that were compared with the main one; where there is a vote
        and a single pass of a group's members, those that are like the main row."""
        compared = [
            [row for row in rows if row.against and row.group != "systems"]
            for _, rows in self.groups
        ]
        return [row for rows in compared for row in self._like_main(rows)]

    @property
    def plotted(self) -> list[Row]:
        """The rows of the compute plot, which need tokens to stand on its logarithmic axis."""
        rows = [row for row in self.rows if row.group in ("systems", "runs")]
        return [row for row in rows if row.tokens_per_question > 0]

    @property
    def lacking(self) -> dict[str, str]:
        """The commands of rows and variants that are not there."""
        present = {name for row in self.rows for name in (row.name, row.variant)}
        present |= {*self.done, *self.failed}
        return {name: line for name, line in self.commands.items() if name not in present}

    @property
    def by_command(self) -> dict[str, list[str]]:
        """The names of the rows and variants that each command makes."""
        names: dict[str, list[str]] = {}
        for name, line in self.commands.items():
            names.setdefault(line, []).append(name)
        return names
