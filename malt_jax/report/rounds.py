"""What `rounds/rounds.json` says of a run's rounds, as dataclasses of plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from malt_jax.report.contract import interval
from malt_jax.report.records import Interval


@dataclass(frozen=True)
class RoleOfRound:
    """One role's samples in a round's trees; shares are fractions, `entropy` and
    `kl_to_base` are in nats a token."""

    role: str
    nodes: int
    positives: int
    parents: int
    parents_with_contrast: int
    mean_tokens: float
    entropy: float
    kl_to_base: float | None  # of what the round trained; None where it was not measured
    truncated: float
    without_rows: tuple[str, ...]  # phases that had nothing to learn from


@dataclass(frozen=True)
class Round:
    """A round: its trees, and its team's accuracy on the development split."""

    number: int
    threshold: float
    temperature: float | None  # of its trees; None in records of earlier versions
    questions: int
    contrast: float  # share of questions neither always right nor always wrong
    distinct_answers: float  # a question
    read: int  # tokens
    written: int
    sampled: float
    sampled_ci95: Interval
    greedy: float
    roles: tuple[RoleOfRound, ...]


@dataclass(frozen=True)
class Rounds:
    """All rounds, the number of the one that was exported, and the accuracies on the `n`
    development questions before any of them, sampled and greedy."""

    rounds: tuple[Round, ...]
    chosen: int
    n: int
    untrained: tuple[float, float]


def parse_rounds(data: Mapping[str, Any]) -> Rounds:
    """Reads the object. Raises KeyError, TypeError or ValueError where it does not follow the
    contract."""
    rows: Sequence[Mapping[str, Any]] = data["rounds"]
    if not rows:
        raise ValueError("it names no round")
    before = rows[0]["accuracy"]
    return Rounds(
        tuple(_round(row) for row in rows),
        int(data["chosen"]),
        int(rows[0]["n"]),
        (before["ma"], before["ma_greedy"]),
    )


def _round(row: Mapping[str, Any]) -> Round:
    return Round(
        number=row["round"],
        threshold=row["threshold"],
        temperature=row.get("temperature"),
        questions=row["questions"],
        contrast=row["contrast"],
        distinct_answers=row["distinct_answers"],
        read=row["tokens"]["read"],
        written=row["tokens"]["written"],
        sampled=row["accuracy"]["malt"],
        sampled_ci95=interval(row["ci95"]["malt"]),
        greedy=row["accuracy"]["malt_greedy"],
        roles=tuple(
            RoleOfRound(
                role=role,
                without_rows=tuple(row["without_rows"].get(role, ())),
                kl_to_base=of_role.get("kl_to_base"),
                **{name: of_role[name] for name in _OF_ROLE},
            )
            for role, of_role in row["roles"].items()
        ),
    )


_OF_ROLE = (
    *("nodes", "positives", "parents", "parents_with_contrast"),
    *("mean_tokens", "entropy", "truncated"),
)
