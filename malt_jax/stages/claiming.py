"""A work directory taken for a config: what it holds must be of these settings and questions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from malt_jax import recipe
from malt_jax.config.settings import Settings
from malt_jax.evaluate import passes, systems
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import FREE, Stage
from malt_jax.workdir import question_record, run_record
from malt_jax.workdir.outputs import Bindings
from malt_jax.workdir.storage import read_json


def bindings(stages: Sequence[Stage]) -> Bindings:
    """What these stages declare of their outputs."""
    return Bindings(tuple(output for stage in stages for output in stage.outputs), FREE, _adds)


def _adds(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """More systems only add passes, unless these are longer ones in the place of those there; and
    more rounds, or another threshold of rounds to come, leave the earlier rounds as they are."""
    if key in ("rounds.count", "rounds.thresholds"):
        return _same_rounds(*map(recipe.parse, (old, new)))
    if key != "eval.systems" or not set(old["eval"]["systems"]) <= set(new["eval"]["systems"]):
        return False
    before, now = (
        passes.draws(systems.chosen(settings), settings)
        for settings in map(recipe.parse, (old, new))
    )
    return all(now.get(place) == draw for place, draw in before.items())


def _same_rounds(old: Settings, new: Settings) -> bool:
    """Whether all rounds of `old` are rounds of `new` with the same thresholds."""
    if old.rounds.count < 2 or new.rounds.count < old.rounds.count:
        return False
    return all(
        old.rounds.threshold(number, old.credit.threshold)
        == new.rounds.threshold(number, new.credit.threshold)
        for number in range(1, old.rounds.count + 1)
    )


def claim(
    workdir: Path,
    config: Mapping[str, Any],
    stages: Sequence[Stage],
    base: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """`run_record.claim` by the first host, with what `stages` declare. Raises ValueError if the
    other hosts have another directory of this name."""
    hosts.by_first(
        lambda: run_record.claim(workdir, config, bindings(stages), base, recipe.completed)
    )
    path = workdir / "config.json"
    if not hosts.same(path.read_bytes() if path.exists() else b""):
        raise ValueError(
            f"config.workdir: {workdir} is not one directory for all hosts; name one on a file "
            "system that they share, or in a bucket"
        )


def check_questions(job: Job) -> None:
    """Reads the questions again, and so compares them with those of then, where a file that they
    come from has changed: also for stages that do not ask them. Raises ValueError naming one that
    differs."""
    record = read_json(job.directory / "config.json")
    changed = run_record.changed_inputs(record)
    held_out = question_record.path(job.directory, "eval").exists() and "data.eval" in changed
    sources = {"data.train", "data.eval", "data.exclude"}
    trained = question_record.path(job.directory, "train").exists() and sources & changed.keys()
    if hosts.any_says(held_out):
        _ = job.held_out
    if hosts.any_says(bool(trained)):
        _ = job.training
    noted = {**record.get("inputs", {}), **changed}
    if hosts.any_says(bool(changed)):
        hosts.by_first(lambda: run_record.note(job.directory, inputs=noted))
