"""At which temperature a round draws its trees: of `config.rounds.temperatures` the one at which
the most questions have a contrast, for only those teach anything."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from absl import logging

from malt_jax.rollout import driver
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.runtime import hosts
from malt_jax.stages import collect, curriculum
from malt_jax.stages.job import Job
from malt_jax.stages.stage import SAMPLES
from malt_jax.types import Question
from malt_jax.workdir import storage
from malt_jax.workdir.outputs import Output
from malt_jax.workdir.storage import read_json

FOLDER = "temperatures"
"""In a round's work directory: the trees at each candidate, and the choice."""
OUTPUT = Output(
    FOLDER,
    (
        *(*SAMPLES, "rounds.behaviour", "rounds.number"),
        *("rounds.temperatures", "rounds.temperature_questions"),
    ),
)


def stored(directory: Path) -> float:
    """The choice of the round whose work directory this is; 0 if none is made yet."""
    path = _record(directory)
    return float(read_json(path)["chosen"]) if path.exists() else 0.0


def choose(job: Job) -> float:
    """Draws a tree of each development question, of the first `config.rounds.temperature_questions`
    of them, at every candidate, by the team that draws the round's trees; returns the candidate
    with the largest share of questions with a contrast, and notes what it was chosen by. All
    candidates use the same random numbers. Goes on where it was stopped.
    """
    over = job.settings.rounds
    questions, team = job.development[: over.temperature_questions], collect.drawing(job)
    shares = []
    for temperature in over.temperatures:
        at = replace(
            team,
            sampling=replace(team.sampling, temperature=temperature),
            random_stream=f"temperature {over.number}",
        )
        trees = job.directory / FOLDER / f"{temperature:g}"
        per_shard = job.settings.sample.questions_per_shard
        driver.store(trees, full_tree(at), questions, per_shard, f"temperature {temperature:g}")
        shares.append(contrast(trees, questions))
    chosen = over.temperatures[shares.index(max(shares))]
    table = ", ".join(
        f"{share:.1%} at {at:g}" for at, share in zip(over.temperatures, shares, strict=True)
    )
    logging.info("questions with a contrast: %s; the trees are drawn at %g", table, chosen)
    record = {
        "candidates": list(over.temperatures),
        "contrast": shares,
        "questions": len(questions),
        "chosen": chosen,
    }
    hosts.by_first(lambda: storage.write_json(_record(job.directory), record))
    return chosen


def contrast(trees: Path, questions: Sequence[Question]) -> float:
    """The share of the questions whose value, the mean over all leaves, is neither 0 nor 1."""
    values = curriculum.root_values(trees)
    return sum(0.0 < values.get(q.id, 0.0) < 1.0 for q in questions) / len(questions)


def _record(directory: Path) -> Path:
    return directory / FOLDER / "chosen.json"
