"""Work directories side by side: one row a system, each against the main one on the same questions,
with the tokens it spent and what the paper reports.

The result, `comparison.json`, is what the report shows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malt_jax.evaluate import scoring, stats, systems
from malt_jax.evaluate.scoring import Outcomes, Row
from malt_jax.experiments import paper, variants
from malt_jax.experiments.variants import Config, Variant
from malt_jax.report import described, freshness, stage_command
from malt_jax.types import System, main_system
from malt_jax.workdir import run_record, storage
from malt_jax.workdir.storage import read_json

# Chains and debates have room for questions of different lengths. Where nearly all are shared,
# those that both answered are compared; else these are other questions.
_SHARED = 0.9
_UNREAD = ("unparseable", "truncated", "unknown")


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


def write(config: Config, chosen: Sequence[Variant], others: Sequence[Path]) -> Row:
    """Compares the run of `config` with its variants and with other runs, as far as each has been
    evaluated, and writes `comparison.json`.

    Raises ValueError if the run itself was not evaluated.
    """
    workdir = storage.at(config["workdir"])
    run, results = read(workdir), read_json(workdir / "eval" / "results.json")
    main = main_system(list(run.systems.values())).name
    test = _Test(run.outcomes[main], config["seed"], config["eval"]["resamples"])
    done = [variant for variant in chosen if variants.results(config, variant).exists()]
    flows, at_k = dict(results["flows"]), dict(results["at_k"])
    for variant in done:
        of_variant = read_json(variants.results(config, variant))
        if "malt" in of_variant["flows"]:
            flows[variant.name] = of_variant["flows"]["malt"]
        if "eval.votes" in variant.values:
            at_k["malt"] = of_variant["at_k"]["malt"]
    command = run_record.command()
    alone = re.sub(r"\s+--compare[= ]\S+", "", stage_command(command, "all"))
    comparison: Row = {
        "suite": config["suite"] or "runs",
        "main": main,
        "n": len(run.outcomes[main]),
        "k": results["k"],
        "paper": paper.source(config),
        "rows": _table(test, config, run, done, others),
        "voting": results.get("voting", []),
        "equal_compute": results.get("equal_compute"),
        "at_k": at_k,
        "flows": flows,
        "format": [_format(run, a, b) for a, b in _gains(run.systems.values())],
        "critiques": results.get("critiques"),
        "power": _power(run, main),
        "seeds": _seeds(run, config, [v for v in done if v.group == "seeds"], main),
        "commands": {variant.name: alone for variant in chosen},
        "command": command,
        "inputs": _inputs(config, done, others),
    }
    storage.write_json(workdir / "comparison.json", comparison)
    return comparison


def read(workdir: Path) -> Evaluated:
    """Every evaluated system of a work directory. Raises ValueError if there is none."""
    path = workdir / "eval" / "outcomes.parquet"
    if not path.exists():
        raise ValueError(f"{path}: not there; run --stage=evaluate in {workdir} first")
    outcomes = scoring.read_outcomes(path)
    results = read_json(workdir / "eval" / "results.json")
    return Evaluated(described.by_name(results | {"systems": outcomes}), outcomes)


def _inputs(config: Config, done: Sequence[Variant], others: Sequence[Path]) -> Row:
    """What was compared, by which a report can tell whether that is still there."""
    workdir, below = storage.at(config["workdir"]), variants.directory
    places = {
        ".": workdir,
        **{f"variants/{v.name}": below(config, v.name) for v in done},
        **{str(storage.absolute(other)): other for other in others},
    }
    return {place: freshness.fingerprint(directory) for place, directory in places.items()}


def _table(
    test: "_Test",
    config: Config,
    run: Evaluated,
    done: Sequence[Variant],
    others: Sequence[Path],
) -> list[Row]:
    """The rows of the run itself, of its variants and of other runs."""
    rows = []
    for name, system in run.systems.items():
        about = _about(name, system.title, "systems", "", system, paper.accuracy(config, name))
        rows.append(_row(test, about, run.outcomes[name]))
    for variant in done:
        rows += _rows_of(test, config, variant)
    for other in others:
        evaluated = read(other)
        for system in evaluated.systems.values():
            name = f"{system.name} in {other}"
            about = _about(name, name, "runs", str(other), system, None)
            rows.append(_row(test, about, evaluated.outcomes[system.name]))
    return rows


def _rows_of(test: "_Test", config: Config, variant: Variant) -> list[Row]:
    """A variant's rows of the table."""
    rows = []
    evaluated = read(variants.directory(config, variant.name))
    for system in evaluated.systems.values():
        name, title = variant.rows[system.name], variant.title
        baseline = system.kind != "debate" and not system.trained
        if baseline or variant.group in ("seeds", "transfer"):
            title = f"{system.title}, {title}"  # of several systems: which one
        elif system.kind != "debate" and system.voted:
            title += ", vote"
        reported = paper.accuracy(config, name, variant.reported if system.voted else ())
        about = _about(name, title, variant.group, variant.name, system, reported)
        about["swept"] = variant.swept and list(variant.swept)
        rows.append(_row(test, about, evaluated.outcomes[system.name]))
    return rows


def _about(
    name: str, title: str, group: str, variant: str, system: System, reported: float | None
) -> Row:
    """What a row is: a system of a variant, or of the run itself where `variant` is empty; and the
    accuracy that the paper reports."""
    return {
        "name": name,
        "title": title,
        "group": group,
        "variant": variant,
        "system": systems.described(system),
        "swept": None,
        "paper": reported,
    }


def table(comparison: Row) -> str:
    """The rows as text, the paper's own numbers beside them."""
    width = max(len(row["name"]) for row in comparison["rows"]) + 2
    lines = [
        f"{'':{width}}{'accuracy':>9} {'95% interval':>14} {'paper':>6} {'main - this':>12} "
        f"{'95% interval':>15} {'tokens':>7}"
    ]
    for row in comparison["rows"]:
        low, high = (100 * x for x in row["ci95"])
        tokens = sum(row["tokens"].values()) / row["n"]
        reported = "" if row["paper"] is None else f"{100 * row['paper']:.1f}"
        line = f"{row['name']:{width}}{100 * row['accuracy']:8.1f}% "
        line += f"{f'[{low:.1f}, {high:.1f}]':>14} {reported:>6} "
        if other := row["against_main"]:
            low, high = (100 * x for x in other["ci95"])
            line += f"{100 * other['difference']:+12.1f} {f'[{low:+.1f}, {high:+.1f}]':>15} "
        else:
            line += " " * 29
        lines.append(f"{line}{tokens:7.0f}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Test:
    """What rows are compared with: the main system's outcomes, and the bootstrap's settings."""

    main: Mapping[str, Outcomes]
    seed: int
    resamples: int


def _row(test: _Test, about: Row, outcomes: Mapping[str, Outcomes]) -> Row:
    """A row: what it is, its score, and the main system's difference to it where it answered the
    same questions."""
    against = None
    common = [question for question in test.main if question in outcomes]
    shared = len(common) >= _SHARED * min(len(outcomes), len(test.main))
    if outcomes is not test.main and shared:
        main, outcomes = [test.main[i] for i in common], {i: outcomes[i] for i in common}
        against = scoring.compared(main, list(outcomes.values()), test.seed, test.resamples)
    right = np.array([scoring.right(answered) for answered in outcomes.values()])
    likeness = None
    if len(outcomes) >= 200:  # of fewer, two subsets of 100 are much the same, as their means are
        mean, spread = stats.subsets(right, test.seed, size=100, count=4)
        likeness = {"mean": mean, "sd": spread}
    score = scoring.score(list(outcomes.values()), test.seed, test.resamples)
    return about | score | {"likeness": likeness, "against_main": against}


def _gains(systems: Iterable[System]) -> list[tuple[str, str]]:
    """The gains to take apart: from each baseline to the trained team with as many votes, the
    largest team first."""
    asked = [system for system in systems if system.kind != "debate"]
    teams = [system for system in asked if system.trained and system.kind == "team"]
    return [
        (baseline.name, team.name)
        for team in sorted(teams, key=lambda team: team.rank, reverse=True)
        for baseline in asked
        if not baseline.trained
        and (baseline.votes, baseline.decoding) == (team.votes, team.decoding)
    ]


def _format(run: Evaluated, a: str, b: str) -> Row:
    """How much of a gain is format: answers right in b that could not be read in a, or were read
    and wrong; and what b lost."""
    n, unread, wrong, lost = len(run.outcomes[b]), 0.0, 0.0, 0.0
    for question, after in run.outcomes[b].items():
        # The passes of a question have the same random numbers in both systems.
        pairs = list(zip(run.outcomes[a][question], after, strict=False))
        unread += sum(now.right and was.status in _UNREAD for was, now in pairs) / len(pairs)
        wrong += sum(now.right and was.status == "wrong" for was, now in pairs) / len(pairs)
        lost += sum(was.right and not now.right for was, now in pairs) / len(pairs)
    return {
        "from": a,
        "to": b,
        "gain": (unread + wrong - lost) / n,
        "became_parseable": unread / n,
        "became_right": wrong / n,
        "lost": lost / n,
    }


def _power(run: Evaluated, main: str) -> Row | None:
    """How many questions it takes to see the difference between the main system and the strongest
    baseline that was evaluated here."""
    baselines = [s.name for s in run.systems.values() if not s.trained and s.name != main]
    if not baselines:
        return None
    correct = {name: sum(run.right(name).values()) for name in (main, *baselines)}
    strongest = max(baselines, key=lambda name: correct[name])
    right, baseline = run.right(main), run.right(strongest)
    n = len(right)
    difference = (correct[main] - correct[strongest]) / n
    if not difference:
        return None
    # The share of questions that set them apart, where each has one answer.
    discordant = sum((right[question] - baseline[question]) ** 2 for question in right) / n
    return {
        "against": strongest,
        "discordant": discordant,
        "difference": difference,
        "questions": stats.questions_needed(difference, discordant),
        "have": n,
    }


def _seeds(run: Evaluated, config: Config, done: Sequence[Variant], main: str) -> Row | None:
    """Differences between the main system and each other over all seeds that were run, with an
    interval that resamples seeds and questions."""
    if not done:
        return None
    runs = [run, *(read(variants.directory(config, variant.name)) for variant in done)]
    asked = [list(seed.outcomes[main]) for seed in runs]
    same = all(set(questions) == set(asked[0]) for questions in asked)
    most = min(map(len, asked))
    differences = {}
    for name in run.systems:
        if name == main or not all(name in seed.systems for seed in runs):
            continue
        values = [
            [
                scoring.right(seed.outcomes[main][question])
                - scoring.right(seed.outcomes[name][question])
                for question in (asked[0] if same else questions[:most])
            ]
            for seed, questions in zip(runs, asked, strict=True)
        ]
        mean, low, high = stats.nested_bootstrap(
            np.array(values), config["seed"], config["eval"]["resamples"], same_questions=same
        )
        differences[name] = {"difference": mean, "ci95": [low, high]}
    return {"runs": len(runs), "differences": differences}
