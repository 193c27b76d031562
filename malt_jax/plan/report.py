"""A plan as a table to read and as `plan.json`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from malt_jax.plan import workload
from malt_jax.plan.estimate import Hours
from malt_jax.plan.layout import Looked
from malt_jax.plan.line import Line, Target
from malt_jax.plan.search import Proposal
from malt_jax.plan.topology import GIB
from malt_jax.plan.workload import Work

_MEMORY = ("weights", "adapters", "optimiser", "cache", "batch")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a plan says."""

    topology: str
    target: Target
    asked: Looked
    proposal: Proposal | None
    largest: Mapping[str, int]  # by the key of the config; of the layout that fits
    work: Work
    hours: Hours | None

    @property
    def chosen(self) -> Looked:
        """The layout that was asked for if it fits or nothing else does, else the proposal."""
        return self.asked if self.proposal is None else self.proposal.looked


def table(plan: Plan) -> str:
    """The plan as text."""
    chip, config = plan.target.chip, plan.target.config
    parts = [
        f"{len(plan.target.devices)} x {chip.kind} ({plan.topology}): each {chip.memory / GIB:.2f} "
        f"GiB, {chip.flops / 1e12:.0f} TFLOP/s, {chip.bandwidth / 1e9:.0f} GB/s, links "
        f"{chip.links / 1e9:.0f} GB/s",
        f"model: {config.family} of {config.num_layers} layers, hidden size {config.hidden_size}, "
        f"vocabulary {config.vocab_size}, {plan.target.dtype}",
        "",
        *_layout("as configured", plan.asked),
    ]
    if plan.asked.failures:
        parts += ["", "does not fit:", *(f"  {failure}" for failure in plan.asked.failures)]
    if plan.proposal is not None:
        parts += ["", *_layout("the nearest layout that fits", plan.proposal.looked)]
        parts += ["", "ask for it with:", f"  {' '.join(plan.proposal.flags)}"]
    if plan.largest:
        parts += ["", "largest that fits: " + _pairs(plan.largest)]
    if plan.hours is not None:
        parts += ["", *_hours(plan.hours, plan.work, len(plan.target.devices))]
    parts += ["", "assumed:", *(f"  {line}" for line in workload.ASSUMPTIONS)]
    return "\n".join(parts)


def _layout(title: str, looked: Looked) -> list[str]:
    mesh, phases = looked.settings.mesh, workload.phases(looked.settings)
    batches = ", ".join(
        f"{name} {p.accumulate} x {p.batch} {p.remat}" for name, p in phases.items()
    )
    heading = (
        f"{title}: mesh data {mesh.data or 'the rest'} x fsdp {mesh.fsdp} x tensor {mesh.tensor}, "
        f"{looked.settings.sample.rows} rows, {batches}"
    )
    memory: list[tuple[str, ...]] = [
        ("GiB a chip", *_MEMORY, "temporaries", "total", "of chip", "")
    ]
    cost: list[tuple[str, ...]] = [
        ("a run, a chip", "GFLOP", "GB memory", "GB links", "compute", "memory", "links", "")
    ]
    for line in looked.lines:
        memory.append((line.name, *_sizes(line)))
        if line.temporaries is not None:
            cost.append((line.name, *_costs(line)))
    return [heading, "", *_aligned(memory), *(["", *_aligned(cost)] if len(cost) > 1 else [])]


def _sizes(line: Line) -> list[str]:
    parts = [line.memory.get(name, 0.0) for name in _MEMORY]
    beside = "?" if line.temporaries is None else _gib(line.temporaries)
    if math.isinf(line.total):
        return [*map(_gib, parts), beside, "?", "?", "DOES NOT FIT"]
    share = f"{line.total / line.chip.memory:.0%}"
    return [*map(_gib, parts), beside, _gib(line.total), share, "" if line.fits else "DOES NOT FIT"]


def _costs(line: Line) -> list[str]:
    sizes = (line.cost.flops, line.cost.bytes, sum(line.traffic.values()))
    times = line.seconds
    bound = max(times, key=lambda name: times[name])
    return [
        *(f"{size / 1e9:,.2f}" for size in sizes),
        *(f"{1e3 * seconds:,.2f} ms" for seconds in times.values()),
        f"limit: {bound}",
    ]


def _hours(hours: Hours, work: Work, chips: int) -> list[str]:
    rows = [("at least", "hours", "chip-hours", "")]
    notes = {
        "collect": f"{work.train_questions:,} questions, {_tokens(work, 'collect')}",
        "train": f"{_pairs(work.steps)} steps",
        "score": f"{work.scored:,} tokens, held out (config.*.eval_every) and under references",
        "evaluate": f"{work.eval_questions:,} questions, {_tokens(work, 'evaluate')}",
    }
    for name, note in notes.items():
        value = getattr(hours, name)
        rows.append((name, f"{value:.2f}", f"{chips * value:.1f}", note))
    rows.append(("the job", f"{hours.job:.2f}", f"{chips * hours.job:.1f}", ""))
    return _aligned(rows)


def _tokens(work: Work, stage: str) -> str:
    return f"{work.decoded[stage]:,} tokens decoded, {work.prefilled[stage]:,} prefilled"


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in counts.items())


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first and the last to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(i: int, text: str) -> str:
        return text.ljust(widths[i]) if i in (0, len(widths) - 1) else text.rjust(widths[i])

    return ["  ".join(cell(i, text) for i, text in enumerate(row)).rstrip() for row in rows]


def record(plan: Plan) -> dict[str, Any]:
    """The plan as plain data; bytes, seconds and operations are those of one chip and one run."""
    return {
        "topology": plan.topology,
        "chips": len(plan.target.devices),
        "chip": dataclasses.asdict(plan.target.chip),
        "model": dataclasses.asdict(plan.target.config),
        "asked": _record(plan.asked),
        "proposal": plan.proposal
        and {"flags": list(plan.proposal.flags), **_record(plan.proposal.looked)},
        "largest": dict(plan.largest),
        "work": dataclasses.asdict(plan.work),
        "hours": plan.hours and {**dataclasses.asdict(plan.hours), "job": plan.hours.job},
        "assumptions": list(workload.ASSUMPTIONS),
    }


def _record(looked: Looked) -> dict[str, Any]:
    return {
        "mesh": dataclasses.asdict(looked.settings.mesh),
        "rows": looked.rows,
        "failures": list(looked.failures),
        "programs": {line.name: _line(line) for line in looked.lines},
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "memory": {**line.memory, "temporaries": line.temporaries},
        "fits": line.fits,
        "flops": line.cost.flops,
        "bytes": line.cost.bytes,
        "traffic": dict(line.traffic),
        "seconds": {**line.seconds, "step": line.step},
    }
