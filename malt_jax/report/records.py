"""What a work directory holds, as dataclasses of plain numbers; accuracies are fractions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from malt_jax.types import System

Interval = tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """config.json: what was run, by which command, with which packages; and the settings that were
    changed since (`date`, `command`, `config`), in order."""

    config: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    base_hash: str
    started: str
    platform: str
    changes: tuple[Mapping[str, Any], ...]

    @property
    def threshold(self) -> float:
        """A node is a positive iff its value is strictly above this (MALT, section 4.2)."""
        return float(self.config["credit"]["threshold"])

    @property
    def positive(self) -> str:
        """What a positive's value is above where that is not the same value everywhere, or
        empty."""
        rules = {"quantile": "the quantile of its role's values", "parent": "its parent's"}
        return rules.get(self.config["credit"].get("label", ""), "")

    @property
    def chain(self) -> tuple[str, ...]:
        """The roles' names in their order."""
        return tuple(self.config["chain"])

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The config as (dotted key, JSON value) rows in its own order."""
        return [(key, json.dumps(v, ensure_ascii=False)) for key, v in _flatten(self.config)]


@dataclass(frozen=True)
class Score:
    """What one system came to. `accuracy` and `ci95` are fractions. `correct` and what follows are
    counts of `answers`: those of a question are one vote, or all passes that were drawn. Tokens are
    totals over the questions, of a mean pass; `novel_tokens` are those read where every shared
    prefix counts once, None where that is not known."""

    name: str
    system: System
    n: int
    answers: int
    correct: int
    accuracy: float
    ci95: Interval
    unparseable: int
    truncated: int
    unknown: int  # grading came to no verdict in its time
    prompt_tokens: float
    completion_tokens: float
    novel_tokens: float | None

    @property
    def tokens_per_question(self) -> float:
        """Prompt and completion tokens together."""
        return (self.prompt_tokens + self.completion_tokens) / max(self.n, 1)


@dataclass(frozen=True)
class Paired:
    """Accuracy of `a` minus that of `b` on the same `n` questions, as fractions."""

    a: str
    b: str
    difference: float
    ci95: Interval
    n: int
    p_mcnemar: float | None

    def flipped(self) -> "Paired":
        """The same comparison read as `b` minus `a`."""
        low, high = self.ci95
        return Paired(self.b, self.a, -self.difference, (-high, -low), self.n, self.p_mcnemar)


@dataclass(frozen=True)
class Vote:
    """A single role's majority vote over `k` samples; `tokens` are a question's, on average."""

    k: int
    accuracy: float
    ci95: Interval
    tokens: float


@dataclass(frozen=True)
class EqualCompute:
    """`system` minus the vote of the single role `voter` that spends at least as many tokens at
    `price`: "read_and_written" alike, or only those "written"."""

    system: str
    voter: str
    price: str
    tokens: float
    vote: Vote
    difference: float
    ci95: Interval

    @property
    def short(self) -> bool:
        """Whether fewer samples were drawn than the system's tokens pay for."""
        return self.vote.tokens < self.tokens


@dataclass(frozen=True)
class Flow:
    """What became of the first role's answers by the end of the chain, in counts."""

    system: str
    wrong_to_right: int
    right_to_wrong: int
    right_to_right: int
    wrong_to_wrong: int

    @property
    def n(self) -> int:
        return self.wrong_to_right + self.right_to_wrong + self.right_to_right + self.wrong_to_wrong


@dataclass(frozen=True)
class Verdicts:
    """What a role's verdicts say of the first role's answers, in counts, and the area under their
    ROC curve, None where all answers are right, or all wrong."""

    system: str
    role: str
    accepted_right: int
    accepted_wrong: int
    rejected_right: int
    rejected_wrong: int
    without: int
    auroc: float | None


@dataclass(frozen=True)
class Evaluation:
    """eval/results.json."""

    n: int
    k: int
    tie_rule: str
    systems: tuple[Score, ...]
    paired: tuple[Paired, ...]
    flows: tuple[Flow, ...]
    verdicts: tuple[Verdicts, ...]
    equal_compute: tuple[EqualCompute, ...]
    titles: Mapping[str, str]  # of systems, also of those that only vote at equal compute
    split: str = "test"


@dataclass(frozen=True)
class RoleYield:
    """What one role got out of the trees. `counts[i]` values lie in [edges[i], edges[i + 1]);
    `examples` are those made for each phase, by what they are called."""

    role: str
    nodes: int
    positives: int
    parents: int
    parents_with_contrast: int
    examples: Mapping[str, int]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    dropped: Mapping[str, int]


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [
            row
            for key, inner in value.items()
            for row in _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, value)]
