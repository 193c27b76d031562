"""What a round of learning costs: tokens sampled and trained a second, round by round, and the
seconds that are neither sampling nor training (loading adapters, data sets, exports, figures).

    python tests/benchmarks/rounds.py [--rounds=3] [--questions=24] [--json]

The quickstart on fewer questions, in this process and in a new work directory. The first round
compiles; the overhead of the later ones is what a round costs by itself.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from malt_jax import recipe, stages
from malt_jax.rollout import driver
from malt_jax.stages import rounds, train
from malt_jax.workdir import shards
from malt_jax.workdir.storage import read_json


@dataclass
class Clock:
    """Seconds in the functions that are watched."""

    seconds: dict[str, float] = field(default_factory=dict)

    def watch(self, module: Any, name: str) -> None:
        """Counts what `module.name` takes from now on."""
        function: Callable[..., Any] = getattr(module, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                passed = time.perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + passed

        setattr(module, name, timed)


def run(workdir: Path, count: int, questions: int) -> list[dict[str, Any]]:
    """A row of figures a round."""
    clock = Clock()
    clock.watch(driver, "store")
    clock.watch(train, "fit")
    rows = []
    for number in range(1, count + 1):
        config = _config(workdir, number, questions)
        clock.seconds, started = {}, time.perf_counter()
        names = ("rounds",) if number > 1 else ()
        if names:
            stages.run(recipe.parse(config), config, names)
        else:  # one round is a run of two that stops there
            _first(config)
        wall = time.perf_counter() - started
        rows.append(_row(workdir, number, wall, clock.seconds))
    return rows


def _first(config: dict[str, Any]) -> None:
    """The first of two rounds, by its own settings."""
    first = rounds.resolve(config, 1)
    stages.run(recipe.parse(first), first, ("collect", "datasets", "train", "evaluate"))


def _config(workdir: Path, number: int, questions: int) -> dict[str, Any]:
    loaded = recipe.load("quickstart")
    loaded.workdir = str(workdir)
    loaded.data.train_questions = questions
    loaded.data.development_questions = 12
    loaded.rounds.count = max(2, number)
    loaded.credit.threshold = 0.0
    return dict(loaded.to_dict())


def _row(workdir: Path, number: int, wall: float, seconds: dict[str, float]) -> dict[str, Any]:
    directory = workdir / "rounds" / str(number)
    sampling, training = seconds.get("store", 0.0), seconds.get("fit", 0.0)
    drawn = sum(_tokens(file) for file in directory.glob("trees/*.parquet"))
    drawn += sum(_tokens(file) for file in directory.glob("eval/development/**/*.parquet"))
    metrics = directory.glob("checkpoints/*/*/metrics.jsonl")
    steps = [json.loads(line) for file in metrics for line in file.read_text().splitlines()]
    trained = sum(step.get("tokens", 0) for step in steps if not step.get("eval"))
    return {
        "round": number,
        "seconds": wall,
        "sampled_tokens_per_second": drawn / sampling,
        "trained_tokens_per_second": trained / training,
        "overhead_seconds": wall - sampling - training,
        "accuracy": read_json(directory / "eval" / "results.json")["systems"]["malt"]["accuracy"],
    }


def _tokens(file: Path) -> int:
    return sum(row["completion_tokens"] for row in shards.read_one(file, ["completion_tokens"]))


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder) / "run", asked.rounds, asked.questions)
    if asked.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            f"round {row['round']}: {row['seconds']:.1f} s, "
            f"{row['sampled_tokens_per_second']:,.0f} tokens sampled a second, "
            f"{row['trained_tokens_per_second']:,.0f} trained, "
            f"{row['overhead_seconds']:.1f} s of overhead"
        )


if __name__ == "__main__":
    main()
