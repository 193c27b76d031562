"""Stage 4: single agent, untrained team and trained team on held-out questions, alone and by
majority vote.

Each question gets k passes of a team: k samples of the first role, each carried through the
chain. Where the single agent is the chain's first role, `sa` and `ma` share their samples; both
teams draw with the same random numbers.
"""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from absl import logging

from malt_jax.config.settings import Settings
from malt_jax.evaluate import equal, passes, scoring, systems, voting
from malt_jax.evaluate.passes import SCORED, Draw, Evaluated
from malt_jax.evaluate.scoring import PREDICTIONS, Outcomes, Passes, Row
from malt_jax.models.lora import Adapter
from malt_jax.rollout.team import Team
from malt_jax.runtime import hosts
from malt_jax.types import PRICES, Question, System
from malt_jax.workdir import shards, storage

TIE_RULE = (
    "the answer with the most votes; among equals the one that appeared first; "
    "an empty answer is no vote"
)


def run(
    workdir: Path,
    settings: Settings,
    team: Team,
    adapters: Mapping[str, Adapter | None],
    questions: Sequence[Question],
) -> Row:
    """Samples what is missing, scores every system and writes `eval/results.json`,
    `eval/outcomes.parquet` and `eval/predictions.parquet`.

    The samples of the development split lie in `eval/development`, beside those of the test split.
    `team` is the untrained one; `adapters` make it the trained one. Returns the results. Raises
    ValueError as `systems.chosen` does.
    """
    started, split, chosen = time.perf_counter(), settings.eval.split, systems.chosen(settings)
    directory = workdir / "eval" / ("" if split == "test" else split)
    evaluated = Evaluated(
        directory, settings, replace(team, random_stream="evaluate"), adapters, questions
    )
    draws = passes.draws(chosen, settings)
    drawn = {place: passes.sample(evaluated, draw) for place, draw in draws.items()}
    outcomes = {system.name: _outcomes(evaluated, system, drawn) for system in chosen}
    teams = {
        draw.label: drawn[place]
        for place, draw in draws.items()
        if len(draw.roles) > 1 or draw.team == "trained"
    }
    greedy = {draw.label for draw in draws.values() if draw.greedy}
    finals = {label: _finals(of_team) for label, of_team in teams.items()}
    paid = equal.paid_for(settings, chosen, outcomes) if settings.eval.equal_compute else None
    voters = _voters(evaluated, drawn, outcomes, paid)
    finals |= voters
    curves = {label: voting.curve(of_label) for label, of_label in finals.items()}
    seed, resamples = settings.seed, settings.eval.resamples
    results: Row = {
        "split": {"name": split, "n": len(questions)},
        "k": settings.eval.votes,
        "tie_rule": TIE_RULE,
        "systems": {
            name: scoring.score(of_system, seed, resamples) for name, of_system in outcomes.items()
        },
        "described": {
            system.name: systems.described(system)
            for system in (*systems.voters(settings), *chosen)
            if system.name in (*outcomes, *voters)
        },
        "paired": scoring.paired(outcomes, seed, resamples),
        "flows": {
            label: scoring.flows(of_team)
            for label, of_team in teams.items()
            if len(of_team[0][0]) > 1
        },
        "verdicts": {
            label: scoring.verdicts(of_team, settings.credit.verdict)
            for label, of_team in teams.items()
            if settings.credit.verdict
        },
        "at_k": {
            label: voting.at_k(rows, curves[label])
            for label, rows in finals.items()
            if label not in greedy
        },
    }
    if "sa" in voters:
        results["voting"] = voting.curve_points(voters["sa"], curves["sa"], seed, resamples)
    main = systems.compared_with_votes(chosen)
    if main and settings.eval.equal_compute and not settings.eval.compute_of:
        paying = outcomes[main.name]
        results["equal_compute"] = [
            {"system": main.name, "voter": voter}
            | voting.equal_compute(paying, of_voter, curves[voter], price, seed, resamples)
            for voter, of_voter in voters.items()
            for price in PRICES
        ]
    if settings.eval.critiques and "malt" in draws and draws["malt"].roles == settings.chain:
        results["critiques"] = _critiques(evaluated, drawn["malt"])
    if paid is not None:
        single = {s.name: (s, voters[s.name]) for s in systems.voters(settings) if s.name in voters}
        votes = equal.votes(single, paid)
        results["described"] |= {name: systems.described(vote) for name, (vote, _) in votes.items()}
        outcomes |= {name: answered for name, (_, answered) in votes.items()}
    results["seconds"] = round(time.perf_counter() - started, 1)
    hosts.by_first(lambda: _write(workdir, directory, results, draws.values(), outcomes, questions))
    return results


def _outcomes(
    evaluated: Evaluated, system: System, drawn: Mapping[str, Sequence[Passes]]
) -> list[Outcomes]:
    """What a system made of each question, in the order of the questions."""
    if system.kind == "debate":
        return [scoring.debated(rows) for rows in passes.debates(evaluated).values()]
    stored = drawn[passes.place(system, evaluated.settings)]
    return [scoring.answers(system, of_question) for of_question in stored]


def _critiques(evaluated: Evaluated, stored: Sequence[Passes]) -> Row:
    """The vote of the trained team's last role with its own critiques, with another question's and
    with none."""
    right = {"own": [_voted_right(finals) for finals in _finals(stored)]}
    for shown in ("other", "none"):
        rows = passes.recritiqued(evaluated, stored, shown)
        right[shown] = [_voted_right(finals) for finals in rows.values()]
    return {shown: scoring.share(sum(votes), len(votes)) for shown, votes in right.items()}


def _voted_right(finals: Sequence[Row]) -> bool:
    return bool(scoring.voted(finals)["status"] == "correct")


def _voters(
    evaluated: Evaluated,
    drawn: Mapping[str, Sequence[Passes]],
    outcomes: Mapping[str, Sequence[Outcomes]],
    paid: Sequence[Outcomes] | None,
) -> dict[str, list[list[Row]]]:
    """The samples of every single role that votes at equal compute, those of a question together:
    of `systems.voters` those whose passes were drawn. For equal compute they are as many as the
    tokens of the costliest system pay for, and of those that are to be `paid`."""
    spent = [*outcomes.values(), *([paid] if paid else [])]
    most = max(map(scoring.plain_cost, spent)) if evaluated.settings.eval.equal_compute else 0.0
    places = {
        voter: passes.place(voter, evaluated.settings)
        for voter in systems.voters(evaluated.settings)
    }
    return {
        voter.name: _samples(evaluated, voter, drawn[place], most)
        for voter, place in places.items()
        if place in drawn and (evaluated.settings.eval.equal_compute or not voter.trained)
    }


def _samples(
    evaluated: Evaluated,
    voter: System,
    stored: Sequence[Passes],
    tokens: float,
) -> list[list[Row]]:
    """A single role's samples of each question: as many as the tokens pay for, as they stand, k at
    a time, and at least k."""
    logging.info("%s: the role %s, alone", voter.title, voter.roles[0])
    finals, votes = [[nodes[0] for nodes in row] for row in stored], evaluated.settings.eval.votes
    for batch in range(1, -(-voting.votes_for(finals, tokens) // votes)):
        more = _finals(passes.more_of(evaluated, voter, batch))
        finals = [a + b for a, b in zip(finals, more, strict=True)]
    return finals


def _finals(stored: Sequence[Passes]) -> list[list[Row]]:
    return [[nodes[-1] for nodes in of_question] for of_question in stored]


def _write(
    workdir: Path,
    samples: Path,
    results: Row,
    draws: Iterable[Draw],
    outcomes: Mapping[str, Sequence[Outcomes]],
    questions: Sequence[Question],
) -> None:
    wanted, directory = {question.id for question in questions}, workdir / "eval"
    with shards.writing(directory / "predictions.parquet", PREDICTIONS) as add:
        for draw in draws:
            for path in shards.paths(samples / draw.place):
                rows = shards.read_one(path, (*SCORED, "question", "reference", "completion"))
                add(_predictions(draw, [row for row in rows if row["question_id"] in wanted]))
    rows = [
        {
            "system": name,
            "question_id": question.id,
            "sample": sample,
            **dataclasses.asdict(outcome),
        }
        for name, of_system in outcomes.items()
        for question, answered in zip(questions, of_system, strict=True)
        for sample, outcome in enumerate(answered)
    ]
    shards.write(directory / "outcomes.parquet", rows, scoring.SCHEMA)
    storage.write_json(directory / "results.json", results)
    for line in told(results):
        logging.info("%s", line)


def told(results: Row) -> Iterator[str]:
    """The lines of the log: the systems, the most accurate first, then the main one beside the
    votes at equal compute, by each price the strongest first."""
    for name, score in sorted(results["systems"].items(), key=lambda row: -row[1]["accuracy"]):
        low, high = (100 * bound for bound in score["ci95"])
        yield f"{name:<12} {100 * score['accuracy']:.1f}% [{low:.1f}, {high:.1f}]"
    rows = results.get("equal_compute", [])
    for row in sorted(rows, key=lambda row: (row["price"], -row["voting"]["accuracy"])):
        low, high = (100 * bound for bound in row["ci95"])
        yield (
            f"at equal compute ({PRICES[row['price']]}) {row['system']} minus the vote of "
            f"{row['k']} samples of {row['voter']} ({100 * row['voting']['accuracy']:.1f}%): "
            f"{100 * row['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"
        )


def _predictions(draw: Draw, rows: Sequence[Row]) -> list[Row]:
    """A shard's rows, question by question and pass by pass."""
    by_question: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_question[row["question_id"]].append(row)
    return [
        {
            **{name: row[name] for name in PREDICTIONS.names if name in row},
            "system": draw.label,
            "sample": row["path"][0],
        }
        for of_question in by_question.values()
        for nodes in passes.in_passes(of_question)
        for row in nodes
    ]
