"""On request, and in the place of collect, datasets and train where `config.rounds.count` is above
1: round after round draws trees by the team as it is trained so far, trains every role on them and
evaluates it on the development split. What the best round exports, the run exports.

A round is a work directory of its own, `rounds/K`, with the same contract as a run's: its settings
follow from the run's (`resolve`), and the stages that a run goes through are done there.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax import export, recipe
from malt_jax.config.evaluation import EvalSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.config.settings import RoleSettings, Settings
from malt_jax.evaluate import round_figures
from malt_jax.learn import datasets as learning
from malt_jax.learn.logprobs import Drawn
from malt_jax.learn.scoring import SAMPLED, kl_to_base
from malt_jax.rollout import records
from malt_jax.runtime import hosts
from malt_jax.sampler import Sampling
from malt_jax.stages import (
    chosen_round,
    claiming,
    collect,
    curriculum,
    datasets,
    evaluate,
    temperature,
    train,
)
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage, gradable
from malt_jax.workdir import lock, rounds, shards, storage
from malt_jax.workdir.storage import read_json

DONE = "round.json"
"""In a round's work directory its figures, once the round is through."""


def resolve(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The config of a round of a run: what the command line would be given to go through its
    stages alone. Rounds count from 1; settings that only say how rounds follow one another, or say
    nothing of this round, are at their defaults, so that a change of theirs is none of a round that
    it leaves as it is."""
    settings = recipe.parse(config)
    workdir, over = storage.at(settings.workdir), settings.rounds
    values = copy.deepcopy(dict(config))
    values["workdir"] = str(rounds.directory(workdir, number))
    values["suite"] = ""
    values["rounds"] |= {
        "count": 1,
        "questions": over.questions if number > 1 else "fresh",
        "thresholds": (),
        "verdict": 0,
        "start": "base",
        "replay": (replay := min(over.replay, number - 1)),
        "replay_weight": over.replay_weight if replay else 1.0,
        "number": number,
    }
    if over.verdict and number > over.verdict:
        values["credit"]["by_verdict"] = ()
    before = rounds.directory(workdir, number - 1)
    if number > 1:
        values["rounds"]["behaviour"] = str(before)
    values["credit"]["threshold"] = over.threshold(number, settings.credit.threshold)
    systems = (*(round_figures.BASELINES if number == 1 else ()), *round_figures.SYSTEMS)
    asked = replace(
        EvalSettings(),
        split="development",
        systems=systems,
        equal_compute=False,
        single_agent=settings.eval.single_agent,
    )
    values["eval"] = Settings(eval=asked).as_config()["eval"]
    for role in settings.chain if number > 1 and over.start == "previous" else ():
        if settings.roles[role].train:
            values["roles"][role]["adapter"] = str(before / "export" / role)
    return values


def _stage(job: Job) -> None:
    over = job.settings.rounds
    if over.count < 2:
        raise ValueError("config.rounds.count: 1, so there are no rounds to go through; raise it")
    job.claim_base()
    if over.questions == "fresh":
        curriculum.check_fresh(job.training, job.settings.data.train_questions, over.count)
    for number in range(1, over.count + 1):
        if _round(job, number):
            hosts.by_first(lambda: _tell(job.directory, number))  # noqa: B023
    hosts.by_first(lambda: _note(job.directory, over.count))
    hosts.by_first(lambda: chosen_round.promote(job.directory, job.settings))


def _round(job: Job, number: int) -> bool:
    """Goes on with a round; whether it was not through already. Raises ValueError if its work
    directory holds what other settings, or another round before it, led to."""
    directory = rounds.directory(job.directory, number)
    of_round = _job_of_round(job, number, temperature.stored(directory))
    with lock.held(directory):
        _claim(of_round)
        claiming.check_questions(of_round)
        if not _is_through(of_round) and _has_a_choice(of_round.settings.rounds):
            of_round.claim_base()
            of_round = _job_of_round(job, number, temperature.choose(of_round))
            _claim(of_round)
        if _is_through(of_round):
            logging.info("round %d of %d: done before", number, job.settings.rounds.count)
            return False
        logging.info("round %d of %d", number, job.settings.rounds.count)
        collect.STAGE.timed(of_round)
        datasets.STAGE.timed(of_round)
        kept = _keep(of_round)
        cut = replace(of_round, settings=_with_rows(of_round.settings, kept))
        train.STAGE.timed(cut)
        evaluate.STAGE.timed(of_round)
        divergence = _divergence(of_round)
        hosts.by_first(lambda: _finish(of_round, kept, divergence))
        return True


def _job_of_round(job: Job, number: int, drawn_at: float) -> Job:
    config = resolve(job.config, number)
    config["rounds"]["drawn_at"] = drawn_at or job.settings.rounds.drawn_at
    return Job(recipe.parse(config), collects=True, config=config)


def _claim(of_round: Job) -> None:
    claiming.claim(of_round.directory, of_round.config, _OF_A_ROUND, of_round.base_hashes)


def _has_a_choice(settings: RoundsSettings) -> bool:
    return bool(settings.temperatures) and not settings.drawn_at


def _is_through(job: Job) -> bool:
    roles = (role for role in job.settings.chain if job.settings.roles[role].train)
    exported = all(export.exists(job.directory, role) for role in roles)
    return exported and (job.directory / DONE).exists()


def _keep(job: Job) -> dict[str, tuple[str, ...]]:
    """By role, the phases of a later round that have no rows to learn from, and those after them.
    A role without any phase left keeps the adapter of the round before, which is exported here
    again. In the first round, which has none before it, training refuses to begin instead."""
    kept: dict[str, tuple[str, ...]] = {}
    for role in job.settings.chain if job.settings.rounds.number > 1 else ():
        phases = job.settings.roles[role].train
        rows = [
            sum(
                learning.rows(job.directory, of, phase) for of in job.settings.teachers(role, phase)
            )
            for phase in phases
        ]
        if all(rows):
            continue
        kept[role] = phases[rows.index(0) :]
        logging.warning(
            "%s: no rows for %s in round %d, so %s",
            role,
            ", ".join(phase for phase, count in zip(phases, rows, strict=True) if not count),
            job.settings.rounds.number,
            f"only {', '.join(phases[: rows.index(0)])} is trained"
            if rows[0]
            else "it keeps the adapter of the round before",
        )
        if not rows[0]:
            before = rounds.beside(job.directory, job.settings.rounds.number - 1)
            hosts.by_first(lambda: export.copied(before, job.directory, role))  # noqa: B023
    return kept


def _with_rows(settings: Settings, kept: Mapping[str, tuple[str, ...]]) -> Settings:
    """The settings without the phases that have no rows."""

    def cut(name: str, role: RoleSettings) -> RoleSettings:
        return replace(role, train=tuple(x for x in role.train if x not in kept.get(name, ())))

    return replace(settings, roles={name: cut(name, role) for name, role in settings.roles.items()})


def _divergence(job: Job) -> dict[str, float]:
    """By role, `kl_to_base` of the round's team on what it answered by chance to the development
    questions; 0 for roles that are the base itself. None where answers are not by chance."""
    sample, chain = job.settings.sample, job.settings.chain
    if not sample.temperature:
        return {}
    drawn = Drawn(Sampling(sample.temperature, sample.top_k, sample.top_p))
    of_role: dict[str, list[dict[str, Any]]] = {role: [] for role in chain}
    for path in shards.paths(job.directory / "eval" / "development" / "malt"):
        for row in records.read(path, ("role", *SAMPLED), arrays="_token_ids"):
            of_role[row["role"]].append(row)
    divergence = {}
    for role, rows in of_role.items():
        settings = job.settings.roles[role]
        if not (settings.train or settings.adapter):
            divergence[role] = 0.0
            continue
        batch = max(job.settings.phases[name].batch for name in settings.train or ("sft",))
        divergence[role] = kl_to_base(rows, job.model, job.mesh, batch, drawn)
    return divergence


def _finish(job: Job, kept: Mapping[str, tuple[str, ...]], divergence: Mapping[str, float]) -> None:
    """Writes the round's figures, with which it is through."""
    figures = round_figures.figures(job.directory, job.settings, divergence)
    left_out = {role: list(phases) for role, phases in kept.items()}
    storage.write_json(job.directory / DONE, figures | {"without_rows": left_out})


def _tell(workdir: Path, number: int) -> None:
    """Logs what a round came to, and warns where it lost what rounds live on."""
    first, now = (read_json(rounds.directory(workdir, i) / DONE) for i in (1, number))
    accuracy = ", ".join(f"{name} {100 * share:.1f}%" for name, share in now["accuracy"].items())
    logging.info("round %d: %s of %d development questions", number, accuracy, now["n"])
    for line in round_figures.collapses(first, now):
        logging.warning("%s", line)
    _note(workdir, number)


def _note(workdir: Path, count: int) -> None:
    """Writes `rounds/rounds.json`: the figures of all rounds, and which of them is the best."""
    done = [read_json(rounds.directory(workdir, i) / DONE) for i in range(1, count + 1)]
    record = {"rounds": done, "chosen": round_figures.best(done)}
    storage.write_json(rounds.table(workdir), record)


def _foresee(job: Job) -> None:
    train.STAGE.foresees(job)
    gradable(job)


STAGE = Stage(
    "rounds",
    "draw trees, train and evaluate on the development split, as often as config.rounds.count says",
    _stage,
    on_request=True,
    collects=True,
    outputs=(temperature.OUTPUT,),
    foresees=_foresee,
)
_OF_A_ROUND = (collect.STAGE, datasets.STAGE, train.STAGE, evaluate.STAGE, STAGE)
