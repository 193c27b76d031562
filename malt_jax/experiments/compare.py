"""Work directories side by side: one row a system, each against the main one on the same questions,
with the tokens it spent and what the paper reports.

The result, `comparison.json`, is what the report shows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from malt_jax.evaluate import scoring, stats
from malt_jax.evaluate.scoring import Outcome, Row
from malt_jax.experiments import paper, variants
from malt_jax.experiments.variants import Config, Variant
from malt_jax.report import freshness, stage_command
from malt_jax.workdir import run_record, shards, storage
from malt_jax.workdir.storage import read_json

MAIN = ("malt_mv", "malt", "ma_mv", "ma", "sa_mv", "sa", "debate")  # the first there is
TITLES = {
    "sa": "single agent",
    "sa_mv": "single agent, vote",
    "ma": "untrained team",
    "ma_mv": "untrained team, vote",
    "malt": "MALT",
    "malt_mv": "MALT, vote",
    "debate": "debate",
}
# Chains and debates have room for questions of different lengths. Where nearly all are shared,
# those that both answered are compared; else these are other questions.
_SHARED = 0.9
_FORMAT = (("sa_mv", "malt_mv"), ("ma_mv", "malt_mv"), ("sa", "malt"))

Outcomes = dict[str, dict[str, Outcome]]
"""System to question id to outcome."""


def write(config: Config, chosen: Sequence[Variant], others: Sequence[Path]) -> Row:
    """Compares the run of `config` with its variants and with other runs, as far as each has been
    evaluated, and writes `comparison.json`.

    Raises ValueError if the run itself was not evaluated.
    """
    workdir = storage.at(config["workdir"])
    own, results = read(workdir), read_json(workdir / "eval" / "results.json")
    main = next(name for name in MAIN if name in own)
    test = _Test(own[main], config["seed"], config["eval"]["resamples"])
    done = [variant for variant in chosen if variants.results(config, variant).exists()]
    flows, at_k = dict(results["flows"]), dict(results["at_k"])
    for variant in done:
        there = read_json(variants.results(config, variant))
        if "malt" in there["flows"]:
            flows[variant.name] = there["flows"]["malt"]
        if "eval.votes" in variant.values:
            at_k["malt"] = there["at_k"]["malt"]
    command = run_record.command()
    alone = re.sub(r"\s+--compare[= ]\S+", "", stage_command(command, "all"))
    found: Row = {
        "suite": config["suite"] or "runs",
        "main": main,
        "n": len(own[main]),
        "k": results["k"],
        "paper": paper.source(config),
        "rows": _table(test, config, own, done, others),
        "voting": results.get("voting", []),
        "equal_compute": results.get("equal_compute"),
        "at_k": at_k,
        "flows": flows,
        "format": [_format(own, a, b) for a, b in _FORMAT if a in own and b in own],
        "critiques": results.get("critiques"),
        "power": _power(own, main),
        "seeds": _seeds(own, config, [v for v in done if v.group == "seeds"], main),
        "commands": {variant.name: alone for variant in chosen},
        "command": command,
        "inputs": _inputs(config, done, others),
    }
    storage.write_json(workdir / "comparison.json", found)
    return found


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
    test: "_Test", config: Config, own: Outcomes, done: Sequence[Variant], others: Sequence[Path]
) -> list[Row]:
    """The rows of the run itself, of its variants and of other runs."""
    rows = [
        _row(test, name, TITLES[name], "systems", "", of_system, paper.accuracy(config, name))
        for name, of_system in own.items()
    ]
    for variant in done:
        rows += _rows(test, config, variant)
    for other in others:
        for system, of_system in read(other).items():
            name = f"{system} in {other}"
            rows.append(_row(test, name, name, "runs", str(other), of_system, None))
    return rows


def _rows(test: "_Test", config: Config, variant: Variant) -> list[Row]:
    """A variant's rows of the table."""
    rows = []
    for system, found in read(variants.directory(config, variant.name)).items():
        name, title = variant.rows[system], variant.title
        if system in ("sa", "sa_mv", "ma", "ma_mv") or variant.group in ("seeds", "transfer"):
            title = f"{TITLES[system]}, {title}"  # of several systems: which one
        elif system == "malt_mv":
            title += ", vote"
        reported = paper.accuracy(config, name)
        rows.append(_row(test, name, title, variant.group, variant.name, found, reported))
    return rows


def read(workdir: Path) -> Outcomes:
    """Every evaluated system of a work directory. Raises ValueError if there is none."""
    path = workdir / "eval" / "outcomes.parquet"
    if not path.exists():
        raise ValueError(f"{path}: not there; run --stage=evaluate in {workdir} first")
    found: Outcomes = {}
    for row in shards.read_one(path):
        counts = row["status"], row["prompt_tokens"], row["completion_tokens"]
        found.setdefault(row["system"], {})[row["question_id"]] = Outcome(*counts)
    return found


def table(found: Row) -> str:
    """The rows as text, the paper's own numbers beside them."""
    width = max(len(row["name"]) for row in found["rows"]) + 2
    lines = [
        f"{'':{width}}{'accuracy':>9} {'95% interval':>14} {'paper':>6} {'main - this':>12} "
        f"{'95% interval':>15} {'tokens':>7}"
    ]
    for row in found["rows"]:
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

    main: Mapping[str, Outcome]
    seed: int
    resamples: int


def _row(
    test: _Test,
    name: str,
    title: str,
    group: str,
    variant: str,
    found: Mapping[str, Outcome],
    reported: float | None,
) -> Row:
    against = None
    common = [question for question in test.main if question in found]
    if found is not test.main and len(common) >= _SHARED * min(len(found), len(test.main)):
        main, found = [test.main[i] for i in common], {i: found[i] for i in common}
        against = scoring.compared(main, list(found.values()), test.seed, test.resamples)
    right = np.array([one.right for one in found.values()])
    likeness = None
    if len(found) >= 200:  # of fewer, two subsets of 100 are much the same, and so are their means
        mean, spread = stats.subsets(right, test.seed, size=100, count=4)
        likeness = {"mean": mean, "sd": spread}
    about = {"name": name, "title": title, "group": group, "variant": variant}
    score = scoring.score(list(found.values()))
    return about | score | {"paper": reported, "likeness": likeness, "against_main": against}


def _format(own: Outcomes, a: str, b: str) -> Row:
    """How much of a gain is format: answers right in b that could not be read in a, or were read
    and wrong; and what b lost."""
    n, unread, wrong, lost = len(own[b]), 0, 0, 0
    for question, after in own[b].items():
        before = own[a][question]
        unread += after.right and before.status in ("unparseable", "truncated", "unknown")
        wrong += after.right and before.status == "wrong"
        lost += before.right and not after.right
    return {
        "from": a,
        "to": b,
        "gain": (unread + wrong - lost) / n,
        "became_parseable": unread / n,
        "became_right": wrong / n,
        "lost": lost / n,
    }


def _power(own: Outcomes, main: str) -> Row | None:
    """How many questions it takes to see the difference between the main system and the strongest
    baseline that was found here."""
    baselines = {name: found for name, found in own.items() if name in ("sa", "sa_mv", "ma_mv")}
    baselines.pop(main, None)
    if not baselines:
        return None

    def correct(found: Mapping[str, Outcome]) -> int:
        return sum(one.right for one in found.values())

    name = max(baselines, key=lambda name: correct(baselines[name]))
    pairs = [(own[main][i].right, baselines[name][i].right) for i in own[main]]
    discordant = sum(a != b for a, b in pairs) / len(pairs)
    difference = (correct(own[main]) - correct(baselines[name])) / len(pairs)
    if not difference:
        return None
    return {
        "against": name,
        "discordant": discordant,
        "difference": difference,
        "questions": stats.questions_needed(difference, discordant),
        "have": len(pairs),
    }


def _seeds(own: Outcomes, config: Config, done: Sequence[Variant], main: str) -> Row | None:
    """Differences between the main system and each other over all seeds that were run, with an
    interval that resamples seeds and questions."""
    if not done:
        return None
    runs = [own, *(read(variants.directory(config, variant.name)) for variant in done)]
    same = all(run[main].keys() == own[main].keys() for run in runs)
    most = min(len(run[main]) for run in runs)
    differences = {}
    for name in (name for name in own if name != main and all(name in run for run in runs)):
        values = [
            [
                float(run[main][question].right) - run[name][question].right
                for question in (own[main] if same else list(run[main])[:most])
            ]
            for run in runs
        ]
        mean, low, high = stats.nested_bootstrap(
            np.array(values), config["seed"], config["eval"]["resamples"], same_questions=same
        )
        differences[name] = {"difference": mean, "ci95": [low, high]}
    return {"runs": len(runs), "differences": differences}
