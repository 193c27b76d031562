"""Reads what the earlier stages wrote in a work directory."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from malt_jax.report.forest import load_forest
from malt_jax.report.records import (
    Evaluation,
    Flow,
    Paired,
    RoleYield,
    Run,
    Settings,
    System,
    Training,
)

T = TypeVar("T")


def load(workdir: Path) -> Run:
    """Reads every part of `workdir` that is there.

    Raises:
      ValueError: `workdir` is no directory, or a file in it does not follow the contract.
    """
    if not workdir.is_dir():
        raise ValueError(f"{workdir}: no such work directory; pass the one the earlier stages used")
    return Run(
        settings=_read(workdir / "config.json", _settings),
        data=_read(workdir / "data.json", _counts),
        forest=load_forest(workdir / "trees"),
        yields=_read(workdir / "datasets" / "yield.json", _yields) or (),
        trainings=tuple(
            _read_training(path)
            for path in sorted(
                workdir.glob("checkpoints/*/*/metrics.jsonl"),
                key=lambda path: (path.parts[-3], path.parts[-2] != "sft"),
            )
        ),
        evaluation=_read(workdir / "eval" / "results.json", _evaluation),
    )


def _read(path: Path, parse: Callable[[Any], T]) -> T | None:
    if not path.exists():
        return None
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise ValueError(f"{path}: lacks {error}; delete it and run its stage again") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; delete it and run its stage again") from error


def _counts(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {
        split: {name: count for name, count in row.items() if isinstance(count, int)}
        for split, row in data.items()
    }


def _settings(data: Mapping[str, Any]) -> Settings:
    return Settings(
        config=dict(data["config"]),
        command=data["command"],
        versions=dict(data["versions"]),
        base_hash=data.get("base_hash", ""),
        started=data.get("started", ""),
        platform=data.get("platform", ""),
    )


def _evaluation(data: Mapping[str, Any]) -> Evaluation:
    systems = tuple(
        System(
            name=name,
            ci95=_interval(row["ci95"]),
            prompt_tokens=row["tokens"]["prompt"],
            completion_tokens=row["tokens"]["completion"],
            **{key: row[key] for key in ("n", "correct", "accuracy", "unparseable", "truncated")},
        )
        for name, row in data["systems"].items()
    )
    paired = tuple(
        Paired(
            row["a"], row["b"], row["difference"], _interval(row["ci95"]), row["n"],
            row.get("p_mcnemar"),
        )
        for row in data["paired"]
    )  # fmt: skip
    # The trained team's comparisons first.
    order = list(data["systems"])
    paired = tuple(sorted(paired, key=lambda pair: -order.index(pair.a)))
    flows = tuple(Flow(system=name, **row) for name, row in data["flows"].items())
    return Evaluation(data["split"]["n"], data["k"], data["tie_rule"], systems, paired, flows)


def _interval(pair: Any) -> tuple[float, float]:
    low, high = pair
    return float(low), float(high)


def _yields(data: Mapping[str, Any]) -> tuple[RoleYield, ...]:
    counts = ("nodes", "positives", "sft_rows", "parents", "parents_with_contrast", "pairs")
    return tuple(
        RoleYield(
            role=role,
            edges=tuple(row["value_histogram"]["edges"]),
            counts=tuple(row["value_histogram"]["counts"]),
            dropped=dict(row["dropped"]),
            **{key: row[key] for key in counts},
        )
        for role, row in data.items()
    )


def _read_training(path: Path) -> Training:
    """A line a step or evaluation; a last line that a kill cut short is left out."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
            rows.append(row)
        except (KeyError, TypeError, ValueError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(
                f"{path}:{number}: not a JSON object with a 'step'; delete the line"
            ) from error
    steps = [row for row in rows if not row.get("eval")]
    return Training(
        role=path.parts[-3],
        phase=path.parts[-2],
        series=_series(steps),
        held_out=_series([row for row in rows if row.get("eval")]),
        steps=len(steps),
    )


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Points by figure; null is a figure that was not finite."""
    found = {
        key: tuple((row["step"], row[key]) for row in rows if row.get(key) is not None)
        for key in ("loss", "accuracy", "margin")
    }
    return {key: points for key, points in found.items() if points}
