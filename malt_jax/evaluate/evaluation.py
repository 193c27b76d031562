"""Stage 4: single agent, untrained team and trained team on held-out questions, alone and by
majority vote.

Each question gets k passes of a team: k samples of the first role, each carried through the
chain. The single agent is the first role of the untrained team, so `sa` and `ma` share their
samples, and both teams draw with the same random numbers.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import logging

from malt_jax.config.settings import SYSTEMS, Settings
from malt_jax.evaluate import scoring
from malt_jax.evaluate.scoring import PREDICTIONS, Outcome, Passes, Row
from malt_jax.models.lora import Adapter
from malt_jax.rollout import driver
from malt_jax.rollout.strategies.critiques import Shown, critiques
from malt_jax.rollout.strategies.debate import debate
from malt_jax.rollout.strategies.full_tree import passes as chain_passes
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Strategy
from malt_jax.runtime import hosts
from malt_jax.types import Question
from malt_jax.workdir import shards, storage

TIE_RULE = (
    "the answer with the most votes; among equals the one that appeared first; "
    "an empty answer is no vote"
)
# What is scored. Texts, which are most of what is stored, are not held for all questions at once.
_SCORED = ("question_id", "role", "path", "answer", "status", "prompt_tokens", "completion_tokens")


def run(
    workdir: Path,
    settings: Settings,
    team: Team,
    adapters: Mapping[str, Adapter | None],
    questions: Sequence[Question],
) -> Row:
    """Samples what is missing, scores every system and writes `eval/results.json`,
    `eval/outcomes.parquet` and `eval/predictions.parquet`.

    `team` is the untrained one; `adapters` make it the trained one. Returns the results.
    """
    started, directory = time.perf_counter(), workdir / "eval"
    wanted = settings.eval.systems
    systems = [name for name in SYSTEMS if name in wanted and name != "debate"]
    evaluating = replace(team, stream="evaluate")
    trained = replace(evaluating, adapters=adapters)
    passes: dict[str, list[Passes]] = {}
    for name, one in _teams(systems, evaluating, trained).items():
        passes[name] = _sample(directory / name, settings, one, questions, name)
    found = {
        name: [scoring.outcome(name, one) for one in passes[_team_of(name)]] for name in systems
    }
    if "debate" in wanted:
        found["debate"] = _debate(directory / "debate", settings, evaluating, questions)
    chains = {
        "malt" if name == "malt" else "ma": one
        for name, one in passes.items()
        if len(one[0][0]) > 1 or name == "malt"
    }
    finals = {name: _finals(one) for name, one in chains.items()}
    if "base" in passes:
        finals["sa"] = _alone(directory, settings, evaluating, questions, passes["base"], found)
    curves = {name: scoring.curve(one) for name, one in finals.items()}
    results: Row = {
        "split": {"n": len(questions)},
        "k": settings.eval.votes,
        "tie_rule": TIE_RULE,
        "systems": {name: scoring.score(one) for name, one in found.items()},
        "paired": scoring.paired(found, settings.seed, settings.eval.resamples),
        "flows": {name: scoring.flows(one) for name, one in chains.items() if len(one[0][0]) > 1},
        "at_k": {name: scoring.at_k(one, curves[name]) for name, one in finals.items()},
    }
    if "base" in passes:
        results |= _against_voting(settings, finals["sa"], curves["sa"], found)
    if "malt" in passes and settings.eval.critiques:
        results["critiques"] = _critiques(directory, settings, trained, questions, passes["malt"])
    results["seconds"] = round(time.perf_counter() - started, 1)
    hosts.by_first(lambda: _write(directory, results, list(passes), found, questions))
    return results


def _teams(systems: Sequence[str], base: Team, trained: Team) -> dict[str, Team]:
    """The teams whose passes the systems need; the first role is enough for the single agent."""
    teams = {}
    if any(_team_of(name) == "base" for name in systems):
        whole_chain = any(name in ("ma", "ma_mv") for name in systems)
        teams["base"] = replace(base, roles=base.roles if whole_chain else base.roles[:1])
    if any(_team_of(name) == "malt" for name in systems):
        teams["malt"] = trained
    return teams


def _team_of(system: str) -> str:
    return "malt" if system.startswith("malt") else "base"


def _debate(
    directory: Path, settings: Settings, team: Team, questions: Sequence[Question]
) -> list[Outcome]:
    _store(directory, settings, debate(team, settings.eval.debate), questions, "debate")
    rows = _by_question(directory, questions)
    return [scoring.debated(of_question) for of_question in rows.values()]


def _critiques(
    directory: Path,
    settings: Settings,
    team: Team,
    questions: Sequence[Question],
    passes: Sequence[Passes],
) -> Row:
    """The vote of the trained team's last role with its own critiques, with another question's and
    with none."""
    stored = dict(zip((q.id for q in questions), passes, strict=True))
    finals = {"own": {id: [nodes[-1] for nodes in one] for id, one in stored.items()}}
    replaced: tuple[Shown, ...] = ("other", "none")
    for shown in replaced:
        place = directory / f"critique-{shown}"
        strategy = critiques(team, stored, shown)
        _store(place, settings, strategy, questions, f"critique {shown}")
        finals[shown] = _by_question(place, questions)
    right = {
        shown: [scoring.voted(one)["status"] == "correct" for one in rows.values()]
        for shown, rows in finals.items()
    }
    return {shown: scoring.share(sum(one), len(one)) for shown, one in right.items()}


def _alone(
    directory: Path,
    settings: Settings,
    team: Team,
    questions: Sequence[Question],
    passes: Sequence[Passes],
    found: Mapping[str, Sequence[Outcome]],
) -> list[list[Row]]:
    """The single agent's samples of each question: for equal compute, as many as the costliest
    system's tokens pay for, k at a time."""
    finals = [[nodes[0] for nodes in one] for one in passes]
    if settings.eval.equal_compute:
        costs = [float(np.mean([o.tokens for o in one])) for one in found.values()]
        wanted = scoring.votes_for(finals, max(costs))
        for i in range(1, -(-wanted // settings.eval.votes)):
            more = replace(team, roles=team.roles[:1], stream=f"{team.stream} {i}")
            drawn = _sample(directory / f"single-{i}", settings, more, questions, "single agent")
            finals = [a + b for a, b in zip(finals, _finals(drawn), strict=True)]
    return finals


def _against_voting(
    settings: Settings,
    alone: Sequence[Sequence[Row]],
    voted: scoring.Curve,
    found: Mapping[str, Sequence[Outcome]],
) -> Row:
    """The single agent's curve by number of votes, and the trained team (else the untrained)
    against it."""
    seed, resamples = settings.seed, settings.eval.resamples
    results: Row = {"voting": scoring.voting(alone, voted, seed, resamples)}
    main = next((name for name in ("malt_mv", "malt", "ma_mv", "ma") if name in found), None)
    if main and settings.eval.equal_compute:
        results["equal_compute"] = scoring.equal_compute(
            main, found[main], alone, voted, seed, resamples
        )
    return results


def _sample(
    directory: Path,
    settings: Settings,
    team: Team,
    questions: Sequence[Question],
    name: str,
) -> list[Passes]:
    """k passes of a team for every question, in the order of the questions."""
    _store(directory, settings, chain_passes(team, settings.eval.votes), questions, name)
    columns = (*_SCORED, "completion") if settings.eval.critiques else _SCORED
    return _passes(directory, questions, columns)


def _store(
    directory: Path,
    settings: Settings,
    strategy: Strategy,
    questions: Sequence[Question],
    name: str,
) -> None:
    """Commits what the strategy samples."""
    # Less branching than a training tree: more questions make the same number of rows.
    per_shard = settings.sample.questions_per_shard * 4
    driver.store(directory, strategy, questions, per_shard, f"evaluate {name}")


def _passes(directory: Path, questions: Sequence[Question], columns: Sequence[str]) -> list[Passes]:
    """The stored passes of each question, in the order of the questions."""
    found = _by_question(directory, questions, columns)
    return [_in_passes(rows) for rows in found.values()]


def _in_passes(rows: Sequence[Row]) -> Passes:
    # A shard holds each tree depth by depth, so each pass is in order.
    passes: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        passes[row["path"][0]].append(row)
    return [nodes for _, nodes in sorted(passes.items())]


def _by_question(
    directory: Path, questions: Sequence[Question], columns: Sequence[str] = _SCORED
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {question.id: [] for question in questions}
    for row in shards.read(directory, columns):
        if row["question_id"] in rows:
            rows[row["question_id"]].append(row)
    return rows


def _finals(passes: Sequence[Passes]) -> list[list[Row]]:
    return [[nodes[-1] for nodes in one] for one in passes]


def _write(
    directory: Path,
    results: Row,
    teams: Sequence[str],
    found: Mapping[str, Sequence[Outcome]],
    questions: Sequence[Question],
) -> None:
    wanted = {question.id for question in questions}
    with shards.writing(directory / "predictions.parquet", PREDICTIONS) as add:
        for name in teams:
            for path in shards.paths(directory / name):
                rows = shards.read_one(path, (*_SCORED, "question", "reference", "completion"))
                add(_predictions(name, [row for row in rows if row["question_id"] in wanted]))
    scores = [
        {
            "system": name,
            "question_id": question.id,
            "status": one.status,
            "prompt_tokens": one.prompt_tokens,
            "completion_tokens": one.completion_tokens,
        }
        for name, of_system in found.items()
        for question, one in zip(questions, of_system, strict=True)
    ]
    shards.write(directory / "outcomes.parquet", scores, scoring.SCHEMA)
    storage.write_json(directory / "results.json", results)
    for name, score in results["systems"].items():
        low, high = score["ci95"]
        logging.info(
            "%-8s %.1f%% [%.1f, %.1f]", name, 100 * score["accuracy"], 100 * low, 100 * high
        )


def _predictions(team: str, rows: Sequence[Row]) -> list[Row]:
    """A shard's rows, question by question and pass by pass."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["question_id"]].append(row)
    return [
        {
            **{name: row[name] for name in PREDICTIONS.names if name in row},
            "system": "malt" if team == "malt" else "ma",
            "sample": row["path"][0],
        }
        for of_question in found.values()
        for nodes in _in_passes(of_question)
        for row in nodes
    ]
