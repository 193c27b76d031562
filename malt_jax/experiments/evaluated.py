"""What the systems of a work directory answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from malt_jax.evaluate import scoring
from malt_jax.evaluate.scoring import Outcomes
from malt_jax.report import described
from malt_jax.types import System
from malt_jax.workdir.storage import read_json


@dataclass(frozen=True)
class Evaluated:
    """What a work directory's systems made of its questions: system by name, and by its name
    question id to its outcomes."""

    systems: Mapping[str, System]
    outcomes: Mapping[str, Mapping[str, Outcomes]]

    def right(self, system: str) -> dict[str, float]:
        """Question id to the share of the system's answers that are correct."""
        answered = self.outcomes[system]
        return {question: scoring.right(of_question) for question, of_question in answered.items()}


def read(workdir: Path) -> Evaluated:
    """Every evaluated system of a work directory. Raises ValueError if there is none."""
    path = workdir / "eval" / "outcomes.parquet"
    if not path.exists():
        raise ValueError(f"{path}: not there; run --stage=evaluate in {workdir} first")
    outcomes = scoring.read_outcomes(path)
    results = read_json(workdir / "eval" / "results.json")
    return Evaluated(described.by_name(results | {"systems": outcomes}), outcomes)
