"""Work directories side by side: one row a system, each against the main one on the same questions,
with the tokens it spent and what the paper reports.

The result, `comparison.json`, is what the report shows.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from malt_jax.evaluate import scoring, stats
from malt_jax.evaluate.scoring import Row
from malt_jax.experiments import evaluated, gains, paper, rows, variant
from malt_jax.experiments.evaluated import Evaluated
from malt_jax.experiments.variant import Config, Variant
from malt_jax.report import freshness, stage_command
from malt_jax.types import main_system
from malt_jax.workdir import reads, run_record, storage
from malt_jax.workdir.storage import read_json


def write(config: Config, chosen: Sequence[Variant], others: Sequence[Path]) -> Row:
    """Compares the run of `config` with its variants and with other runs, as far as each has been
    evaluated, and writes `comparison.json`.

    Raises ValueError if the run itself was not evaluated.
    """
    workdir = storage.at(config["workdir"])
    run, results = evaluated.read(workdir), read_json(workdir / "eval" / "results.json")
    main = main_system(list(run.systems.values())).name
    done = [row for row in chosen if variant.results(config, row).exists()]
    flows, at_k = dict(results["flows"]), dict(results["at_k"])
    for row in done:
        of_variant = read_json(variant.results(config, row))
        if "malt" in of_variant["flows"] and not row.beside:
            flows[row.key] = of_variant["flows"]["malt"]
        if "eval.votes" in row.values:
            at_k["malt"] = of_variant["at_k"]["malt"]
    command = run_record.command()
    alone = re.sub(r"\s+--compare[= ]\S+", "", stage_command(command, "all"))
    table = rows.table(config, run, done, others, main)
    primary = _primary(table, main)
    times, configurations = reads.counts(reads.recorded(workdir), reads.test_set(config))
    comparison: Row = {
        "suite": config["suite"] or "runs",
        "split": results.get("split", {}).get("name", "test"),
        "test_reads": {"times": times, "configurations": configurations},
        "main": main,
        "n": len(run.outcomes[main]),
        "k": results["k"],
        "paper": paper.source(config),
        "rows": _adjusted(table, primary),
        "primary": primary,
        "voting": results.get("voting", []),
        "equal_compute": results.get("equal_compute"),
        "at_k": at_k,
        "flows": flows,
        "format": [gains.shares(run, a, b) for a, b in gains.compared(run.systems.values())],
        "critiques": results.get("critiques"),
        "power": gains.power(run, main),
        "seeds": _seeds(run, config, [row for row in done if row.group == "seeds"], main),
        "commands": {row.key: alone for row in chosen},
        "done": [row.key for row in done],
        "failed": _failed(config, chosen, done),
        "command": command,
        "inputs": _inputs(config, done, others),
    }
    storage.write_json(workdir / "comparison.json", comparison)
    return comparison


def _inputs(config: Config, done: Sequence[Variant], others: Sequence[Path]) -> Row:
    """What was compared, by which a report can tell whether that is still there."""
    places = {
        ".": storage.at(config["workdir"]),
        **{f"variants/{row.key.replace('/', '/variants/')}": variant.workdir(config, row)
           for row in done},
        **{str(storage.absolute(other)): other for other in others},
    }  # fmt: skip
    return {place: freshness.fingerprint(directory) for place, directory in places.items()}


def _failed(config: Config, chosen: Sequence[Variant], done: Sequence[Variant]) -> Row:
    """What the variants that could not be run raised."""
    path = storage.at(config["workdir"]) / "failures.json"
    raised = read_json(path) if path.exists() else {}
    keys = {row.key: row.title for row in chosen if row not in done}
    return {
        key: {"title": title, "reason": str(raised[key])}
        for key, title in keys.items()
        if key in raised
    }


def _primary(table: Sequence[Row], main: str) -> Row | None:
    """The one comparison that is named before all others: the main system against its best rival,
    by the mean over seeds on the questions compared. A maximum of many means is too high rather
    than too low, so that a win over it is claimed conservatively. A loss to it is not, and needs
    Holm's p over all rivals."""
    rivals = [row for row in table if _rival(row, main)]
    if not rivals:
        return None
    best = max(rivals, key=lambda row: (row["accuracy"], -row["against_main"]["difference"]))
    against = best["against_main"]
    adjusted = stats.holm([row["against_main"]["p"] for row in rivals])
    p_holm = adjusted[rivals.index(best)]
    low, high = against["ci95"]
    verdict = "wins" if low > 0 else "loses" if high < 0 and p_holm <= 0.05 else "undecided"
    return {
        "against": best["name"],
        "rivals": len(rivals),
        "seeds": len(best.get("by_seed", ())) or 1,
        **{key: against[key] for key in ("difference", "ci95", "p")},
        "p_holm": p_holm,
        "verdict": verdict,
    }


def _rival(row: Row, main: str) -> bool:
    """Whether a row is another method than the main system's: what is untrained, or of a variant
    among the systems."""
    trained = row["system"]["team"] == "trained" and not row["variant"]
    return bool(row["group"] == "systems" and row["against_main"] and not trained)


def _adjusted(table: Sequence[Row], primary: Row | None) -> list[Row]:
    """The rows with Holm's p-values over all comparisons but the primary one."""
    named = primary["against"] if primary else ""
    family = [row for row in table if row["against_main"] and row["name"] != named]
    adjusted = stats.holm([row["against_main"]["p"] for row in family])
    by_name = dict(zip([row["name"] for row in family], adjusted, strict=True))
    return [
        row | {"against_main": row["against_main"] | {"p_holm": by_name[row["name"]]}}
        if row["name"] in by_name
        else row
        for row in table
    ]


def _seeds(run: Evaluated, config: Config, done: Sequence[Variant], main: str) -> Row | None:
    """Differences between the main system and each other over all seeds that were run, with an
    interval that resamples seeds and questions."""
    if not done:
        return None
    runs = [run, *(evaluated.read(variant.workdir(config, row)) for row in done)]
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


def difference(workdir: Path, other: Path) -> Row | None:
    """The main system of one work directory minus that of another on the same questions, with its
    interval; None where they are one, or share too few questions."""
    if workdir == other or not all(_outcomes(place).exists() for place in (workdir, other)):
        return None
    sides = [evaluated.read(place) for place in (workdir, other)]
    a, b = (side.outcomes[main_system(list(side.systems.values())).name] for side in sides)
    common = rows.common([a, b])
    left, right = ([side[question] for question in common] for side in (a, b))
    return scoring.compared(left, right, seed=0, resamples=10_000) if common else None


def _outcomes(workdir: Path) -> Path:
    return workdir / "eval" / "outcomes.parquet"
