"""The rows of a comparison: each system's score, and the main system's difference to it on the same
questions; over all seeds that were run where the protocol ran several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malt_jax.evaluate import over_seeds, scoring, stats, systems
from malt_jax.evaluate.scoring import Outcomes, Row
from malt_jax.experiments import evaluated, paper, variant
from malt_jax.experiments.evaluated import Evaluated
from malt_jax.experiments.variant import Config, Variant
from malt_jax.types import System

# Chains and debates have room for questions of different lengths. Where nearly all are shared,
# those that both answered are compared; else these are other questions.
_SHARED = 0.9


@dataclass(frozen=True)
class Test:
    """What rows are compared with: the main system's outcomes by seed, and the bootstrap's
    settings."""

    main: Mapping[int, Mapping[str, Outcomes]]
    seed: int
    resamples: int


@dataclass(frozen=True)
class Answers:
    """What one row of the table is of: a system of a variant (None: of the run itself), and its
    outcomes by seed."""

    system: System
    variant: Variant | None
    by_seed: Mapping[int, Mapping[str, Outcomes]]


def table(
    config: Config, run: Evaluated, done: Sequence[Variant], others: Sequence[Path], main: str
) -> list[Row]:
    """The rows of the run itself, of its variants that are `done` and of other runs. `main` is the
    system that they are compared with."""
    seeds = _seeds(config, run, done)
    test = Test(
        {seed: of_seed.outcomes[main] for seed, of_seed in seeds.items()},
        config["seed"],
        config["eval"]["resamples"],
    )
    answers: dict[str, Answers] = {}
    for name, system in run.systems.items():
        outcomes = {seed: e.outcomes[name] for seed, e in seeds.items() if name in e.outcomes}
        answers[name] = Answers(system, None, outcomes)
    repeated = {row.name for row in done if row.beside}
    for row in done:
        if not _is_seed(row):
            _add(answers, config, row, row.name in repeated)
    rows = [_row(test, _about(config, name, of_row), of_row) for name, of_row in answers.items()]
    return rows + [row for other in others for row in _of_other(test, other)]


def _is_seed(row: Variant) -> bool:
    """Whether a variant is the main run with another seed on the same questions."""
    return "data.seed" in row.values


def _seeds(config: Config, run: Evaluated, done: Sequence[Variant]) -> dict[int, Evaluated]:
    """The main run and those of other seeds on the same questions."""
    repeats = [row for row in done if _is_seed(row)]
    return {config["seed"]: run} | {
        row.values["seed"]: evaluated.read(variant.workdir(config, row)) for row in repeats
    }


def _add(answers: dict[str, Answers], config: Config, row: Variant, repeated: bool) -> None:
    """Adds a variant's rows, or its seed to the rows that are there."""
    of_row = evaluated.read(variant.workdir(config, row))
    seed = row.beside.values["seed"] if row.beside else config["seed"]
    trained = [system for system in of_row.systems.values() if system.trained]
    alone = all(len(system.roles) < 2 for system in trained)
    for system in of_row.systems.values():
        # What `malt` is in the main run is the variant itself, and so is its only trained role.
        team, _, suffix = system.name.partition("_")
        of_variant = team == "malt" or (alone and system.trained)
        made = "_".join(filter(None, [row.name, "" if of_variant else team, suffix]))
        name = row.rows.get(system.name, made)
        outcomes = {seed: of_row.outcomes[system.name]}
        if repeated and name in answers:
            known = answers[name]
            outcomes = {**known.by_seed, **outcomes}
            answers[name] = Answers(known.system, known.variant, outcomes)
        else:
            answers[name] = Answers(system, row, outcomes)


def _about(config: Config, name: str, answers: Answers) -> Row:
    """What a row is: a system of a variant, or of the run itself where `variant` is empty; and the
    accuracy that the paper reports."""
    system, row = answers.system, answers.variant
    if row is None:
        reported = paper.accuracy(config, name)
        return _described(name, system.title, "systems", "", system, reported)
    title, baseline = row.title, system.kind != "debate" and not system.trained
    if baseline or row.group in ("seeds", "transfer"):
        title = f"{system.title}, {title}"  # of several systems: which one
    elif system.kind != "debate" and (how := system.title.partition(", ")[2]):
        title += f", {how}"  # greedy, vote
    reported = paper.accuracy(config, name, row.reported if system.voted else ())
    about = _described(name, title, row.group, row.key, system, reported)
    return about | {"swept": row.swept and list(row.swept)}


def _described(
    name: str, title: str, group: str, variant: str, system: System, reported: float | None
) -> Row:
    return {
        "name": name,
        "title": title,
        "group": group,
        "variant": variant,
        "system": systems.described(system),
        "swept": None,
        "paper": reported,
    }


def _of_other(test: Test, other: Path) -> list[Row]:
    """The rows of another run."""
    of_other, rows = evaluated.read(other), []
    first = next(iter(test.main))
    for system in of_other.systems.values():
        name = f"{system.name} in {other}"
        about = _described(name, name, "runs", str(other), system, None)
        outcomes = {first: of_other.outcomes[system.name]}
        rows.append(_row(test, about, Answers(system, None, outcomes)))
    return rows


def _row(test: Test, about: Row, answers: Answers) -> Row:
    """A row: what it is, its score, and the main system's difference to it where it answered the
    same questions."""
    by_seed = {seed: of for seed, of in answers.by_seed.items() if seed in test.main}
    if len(by_seed) > 1 and len(common(list(by_seed.values()))) > 1:
        return about | _over_seeds(test, by_seed)
    seed, outcomes = next(iter(by_seed.items()))
    main = test.main[seed]
    against = None
    asked = common([main, outcomes])
    if outcomes is not main and asked:
        outcomes = {question: outcomes[question] for question in asked}
        against = scoring.compared(
            [main[question] for question in asked],
            list(outcomes.values()),
            test.seed,
            test.resamples,
        )
        against["p"] = against["p_mcnemar"]
        if against["p"] is None:  # a row of several passes
            gap = _right([main], asked) - _right([outcomes], asked)
            against["p"] = over_seeds.p_value(over_seeds.mean(gap))
    right = np.array([scoring.right(answered) for answered in outcomes.values()])
    likeness = None
    if len(outcomes) >= 200:  # of fewer, two subsets of 100 are much the same, as their means are
        mean, spread = stats.subsets(right, test.seed, size=100, count=4)
        likeness = {"mean": mean, "sd": spread}
    score = scoring.score(list(outcomes.values()), test.seed, test.resamples)
    return about | score | {"likeness": likeness, "against_main": against}


def _over_seeds(test: Test, by_seed: Mapping[int, Mapping[str, Outcomes]]) -> Row:
    """The score of a row over seeds on the questions that all of them answered, with intervals
    over seeds and questions; counts and tokens are sums over seeds."""
    mains = [test.main[seed] for seed in by_seed]
    shared = common([*by_seed.values(), *mains])
    shared = shared if len(shared) > 1 else []
    same = all(outcomes is main for outcomes, main in zip(by_seed.values(), mains, strict=True))
    asked = shared or common(list(by_seed.values()))
    right = _right(list(by_seed.values()), asked)
    estimate = over_seeds.mean(right)
    answered = [of_seed[q] for of_seed in by_seed.values() for q in asked]
    score = scoring.score(answered, test.seed, test.resamples)
    against = None
    if shared and not same:
        gap = over_seeds.mean(_right(mains, shared) - right)
        against = {
            "difference": gap.mean,
            "ci95": list(over_seeds.difference_interval(gap)),
            "n": len(shared),
            "p_mcnemar": None,
            "p": over_seeds.p_value(gap),
        }
    accuracies = {str(seed): float(row.mean()) for seed, row in zip(by_seed, right, strict=True)}
    return score | {
        "ci95": list(over_seeds.share_interval(estimate)),
        "by_seed": accuracies,
        "likeness": None,
        "against_main": against,
    }


def common(answered: Sequence[Mapping[str, Outcomes]]) -> list[str]:
    """The questions that all answered, in the first one's order; none where too few are shared."""
    first, *others = answered
    same = [question for question in first if all(question in other for other in others)]
    return same if len(same) >= _SHARED * min(map(len, answered)) else []


def _right(answered: Sequence[Mapping[str, Outcomes]], questions: Sequence[str]) -> np.ndarray:
    """float64[S, questions]: the share of each question's answers that are right."""
    return np.array([[scoring.right(of_seed[q]) for q in questions] for of_seed in answered])
