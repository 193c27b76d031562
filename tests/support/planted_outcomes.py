"""Work directories with evaluations whose every outcome is planted."""

import json
from pathlib import Path

from malt_jax.evaluate import scoring
from malt_jax.workdir import shards

N = 120


def evaluated(workdir: Path, n: int = N, **right: int) -> None:
    """A work directory whose systems solve the first so many of n questions."""
    rows = [
        {
            "system": system,
            "question_id": f"q{i:03}",
            "status": "correct" if i < count else "unparseable" if i > 110 else "wrong",
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "sample": 0,
            "novel_tokens": 60,
        }
        for system, count in right.items()
        for i in range(n)
    ]
    shards.write(workdir / "eval" / "outcomes.parquet", rows, scoring.SCHEMA)
    flow = dict.fromkeys(
        ["wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"], 3
    )
    results = {"k": 3, "flows": {"malt": flow}, "at_k": {"malt": [{"k": 1}]}}
    (workdir / "eval" / "results.json").write_text(json.dumps(results))
    (workdir / "config.json").write_text(json.dumps({"command": "python -m malt_jax.main"}))
