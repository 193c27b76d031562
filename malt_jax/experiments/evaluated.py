"""What the systems of a work directory answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from malt_jax.evaluate.scoring import Outcome
from malt_jax.report import described
from malt_jax.types import System
from malt_jax.workdir import shards
from malt_jax.workdir.storage import read_json


@dataclass(frozen=True)
class Evaluated:
    """What a work directory's systems made of its questions: system by name, and by its name
    question id to outcome."""

    systems: Mapping[str, System]
    outcomes: Mapping[str, Mapping[str, Outcome]]

    def right(self, system: str) -> dict[str, bool]:
        """Question id to whether the system answered it correctly."""
        return {question: outcome.right for question, outcome in self.outcomes[system].items()}


def read(workdir: Path) -> Evaluated:
    """Every evaluated system of a work directory. Raises ValueError if there is none."""
    path = workdir / "eval" / "outcomes.parquet"
    if not path.exists():
        raise ValueError(f"{path}: not there; run --stage=evaluate in {workdir} first")
    outcomes: dict[str, dict[str, Outcome]] = {}
    for row in shards.read_one(path):
        counts = row["status"], row["prompt_tokens"], row["completion_tokens"]
        outcomes.setdefault(row["system"], {})[row["question_id"]] = Outcome(*counts)
    results = read_json(workdir / "eval" / "results.json")
    return Evaluated(described.by_name(results | {"systems": outcomes}), outcomes)
