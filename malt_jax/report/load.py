"""Reads what the earlier stages wrote in a work directory, and what was compared there."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from malt_jax.config.credit import CreditSettings
from malt_jax.config.typed import build
from malt_jax.learn.phases import PHASES
from malt_jax.learn.phases.phase import Phase
from malt_jax.report import described, freshness
from malt_jax.report.comparison import Comparison
from malt_jax.report.contract import equal_compute, interval, parse_comparison
from malt_jax.report.forest import BUDGET, Forest, load_forest
from malt_jax.report.headline import VOTERS
from malt_jax.report.records import (
    Evaluation,
    Flow,
    Paired,
    RoleYield,
    Score,
    Settings,
    Verdicts,
)
from malt_jax.report.rounds import Rounds, parse_rounds
from malt_jax.report.trainings import Training, read_trainings
from malt_jax.workdir import reads, rounds

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """A part that is not there yet, and the stage that writes it; `command` is the run's where it
    is another one than the work directory's."""

    part: str
    stage: str
    command: str = ""


@dataclass(frozen=True)
class Run:
    """All that the work directory holds; a part is None or empty where its stage has not run.
    `forest` are the training trees, `transcripts` the passes of the trained team on the held-out
    questions. Of a run of several `rounds` training trees, yields and trainings are those of the
    round that is exported, and `forests` the trees of the others by the round.

    `stale` is a comparison of results that have changed since in the directories `changed`; it is
    not shown. `test_reads` is how often the test split was read, and by how many configurations.
    """

    settings: Settings | None
    data: Mapping[str, Mapping[str, int]] | None
    forest: Forest | None
    transcripts: Forest | None
    yields: tuple[RoleYield, ...]
    trainings: tuple[Training, ...]
    evaluation: Evaluation | None
    comparison: Comparison | None
    stale: Comparison | None = None
    changed: tuple[str, ...] = ()
    test_reads: tuple[int, int] = (0, 0)
    rounds: Rounds | None = None
    forests: Mapping[int, Forest] = field(default_factory=dict)

    @property
    def bare(self) -> bool:
        """Whether there is a comparison and nothing of a run of its own."""
        parts = (self.settings, self.data, self.forest, self.transcripts, self.yields)
        return bool(self.comparison) and not any((*parts, self.trainings, self.evaluation))

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Of every chain; the comparison knows more of them than one evaluation."""
        known = (*(self.evaluation.flows if self.evaluation else ()),)
        known += self.comparison.flows if self.comparison else ()
        return tuple({flow.system: flow for flow in known}.values())

    @property
    def missing(self) -> dict[str, Missing]:
        """The absent parts, by the name of the attribute that would hold them."""
        stages = {
            "settings": Missing("config.json", "collect"),
            "data": Missing("data.json", "collect"),
            "forest": Missing("trees/*.parquet", "collect"),
            "yields": Missing("datasets/yield.json", "datasets"),
            "trainings": Missing("checkpoints/ROLE/PHASE/metrics.jsonl", "train"),
            "evaluation": Missing("eval/results.json", "evaluate"),
        }
        if self.bare:
            return {}
        lacking = {name: lack for name, lack in stages.items() if not getattr(self, name)}
        if self.stale:
            part = (
                "a comparison of the present results (comparison.json is older than those in "
                f"{', '.join(self.changed)})"
            )
            lacking["comparison"] = Missing(part, "report", self.stale.command)
        return lacking


def load(workdir: Path) -> Run:
    """Reads every part of `workdir` that is there.

    Raises:
      ValueError: `workdir` is no directory, or a file in it does not follow the contract.
    """
    if not workdir.is_dir():
        raise ValueError(f"{workdir}: no such work directory; pass the one the earlier stages used")
    comparison = _read(workdir / "comparison.json", parse_comparison, "compare")
    changed = tuple(freshness.changed(workdir, comparison.inputs)) if comparison else ()
    settings = _read(workdir / "config.json", _settings)
    over = _read(rounds.table(workdir), parse_rounds)
    source = rounds.directory(workdir, over.chosen) if over else workdir
    trained = _trained(settings)
    given, seed = _credit(settings)
    budget = BUDGET // (len(over.rounds) if over else 1)
    return Run(
        settings=settings,
        data=_read(workdir / "data.json", _counts),
        forest=_grown(source, budget),
        rounds=over,
        forests={
            r.number: forest
            for r in (over.rounds if over else ())
            if over
            and r.number != over.chosen
            and (forest := _grown(rounds.directory(workdir, r.number), budget))
        },
        # Held-out answers are what they are, in a control as well.
        transcripts=load_forest(
            workdir / "eval" / "malt", replace(given, shuffle_rewards=False), seed
        ),
        yields=_read(source / "datasets" / "yield.json", partial(_yields, trained=trained)) or (),
        trainings=read_trainings(source),
        evaluation=_read(workdir / "eval" / "results.json", _evaluation),
        comparison=None if changed else comparison,
        stale=comparison if changed else None,
        changed=changed,
        test_reads=_test_reads(workdir, settings),
    )


def _grown(workdir: Path, budget: int) -> Forest | None:
    """The training trees of a work directory, valued by its own settings."""
    given, seed = _credit(_read(workdir / "config.json", _settings))
    return load_forest(workdir / "trees", given, seed, budget)


def _test_reads(workdir: Path, settings: Settings | None) -> tuple[int, int]:
    if settings is None or not {"task", "eval"} <= set(settings.config["data"]):
        return 0, 0
    return reads.counts(reads.recorded(workdir), reads.test_set(settings.config))


def _read(path: Path, parse: Callable[[Any], T], again: str = "run its stage") -> T | None:
    if not path.exists():
        return None
    way_out = f"delete it and {again} again"
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise ValueError(f"{path}: lacks {error}; {way_out}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {way_out}") from error


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
        changes=tuple(data.get("changes", ())),
    )


def _credit(settings: Settings | None) -> tuple[CreditSettings, int]:
    """By what, and from which seed, the run's samples are valued: by the defaults where nothing is
    known of the run."""
    if settings is None or "credit" not in settings.config:
        return CreditSettings(), 0
    # Records of earlier versions lack what was added since.
    given = asdict(CreditSettings()) | settings.config["credit"]
    return build(CreditSettings, given, "config.credit"), settings.config["seed"]


def _evaluation(data: Mapping[str, Any]) -> Evaluation:
    systems = described.by_name(data)
    scores = tuple(
        Score(
            name=name,
            system=systems[name],
            ci95=interval(row["ci95"]),
            prompt_tokens=row["tokens"]["prompt"],
            completion_tokens=row["tokens"]["completion"],
            novel_tokens=row.get("novel_tokens"),
            answers=row.get("answers", row["n"]),
            unknown=row.get("unknown", 0),
            **{key: row[key] for key in ("n", "correct", "accuracy", "unparseable", "truncated")},
        )
        for name, row in data["systems"].items()
    )
    paired = tuple(
        Paired(
            row["a"], row["b"], row["difference"], interval(row["ci95"]), row["n"],
            row.get("p_mcnemar"),
        )
        for row in data["paired"]
    )  # fmt: skip
    # The trained team's comparisons first.
    order = list(data["systems"])
    paired = tuple(sorted(paired, key=lambda pair: -order.index(pair.a)))
    flows = tuple(Flow(system=name, **row) for name, row in data["flows"].items())
    verdicts = tuple(
        Verdicts(system=name, role=role, **row)
        for name, by_role in data.get("verdicts", {}).items()
        for role, row in by_role.items()
    )
    titles = {name: str(row["title"]) for name, row in data.get("described", {}).items()}
    return Evaluation(
        data["split"]["n"], data["k"], data["tie_rule"], scores, paired, flows,
        verdicts, equal_compute(data), VOTERS | titles, data["split"].get("name", "test"),
    )  # fmt: skip


def _yields(data: Mapping[str, Any], trained: Collection[str]) -> tuple[RoleYield, ...]:
    """Of the phases those that are `trained`, in their order; of a run that does not say, all."""
    counted = {
        _called(phase): phase.counted
        for name, phase in PHASES.items()
        if name in trained or not trained
    }
    numbers = ("nodes", "positives", "parents", "parents_with_contrast")
    return tuple(
        RoleYield(
            role=role,
            examples={title: row[key] for title, key in counted.items() if key in row},
            edges=tuple(row["value_histogram"]["edges"]),
            counts=tuple(row["value_histogram"]["counts"]),
            dropped=dict(row["dropped"]),
            **{key: row[key] for key in numbers},
        )
        for role, row in data.items()
    )


def _called(phase: Phase[Any]) -> str:
    """sft_rows: SFT rows."""
    return phase.counted.replace(f"{phase.name}_", f"{phase.name.upper()} ").replace("_", " ")


def _trained(settings: Settings | None) -> set[str]:
    """The phases that any role of the chain goes through."""
    roles = settings.config.get("roles", {}) if settings else {}
    chain = settings.chain if settings else ()
    return {phase for role in chain for phase in roles.get(role, {}).get("train", ())}
