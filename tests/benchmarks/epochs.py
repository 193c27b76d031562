"""The measurements of training: cold start, the first step's loss, and rounds of epochs."""

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import engines, examples
from benchmarks.engines import OURS, Running, measure_machine, say
from benchmarks.peers.training_job import Job
from benchmarks.roofline import Example, Machine, Shape, ideal_training_seconds
from benchmarks.summary import gib, ratio, spread
from benchmarks.weights import Weights, derive
from configs.base import get_config
from malt_jax.models import hf
from malt_jax.text.tokenizer import Tokenizer

PHASES = ("sft", "dpo")
BATCH = 8  # rows or pairs an optimiser step
TOLERANCE = 1e-3  # most that a first step may differ from ours, see `figures`


@dataclass
class Row(Running):
    """One engine's figures of one phase so far. `first` is the answer about the first step,
    `losses` are those of the first epoch, `seconds` one a round; of a peer's rounds `ours` are
    those of malt_jax."""

    first: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as the object that --json prints."""
    started = time.perf_counter()
    weights = derive(asked.model, asked.envs / "weights")
    tokenizer = Tokenizer.from_directory(weights.directory)
    data = examples.load(tokenizer, asked.data, asked.rows)
    limits = [measure_machine(asked.envs)]
    rows: dict[str, dict[str, Row]] = {}
    for phase in PHASES:
        job = _job(phase, data[phase], examples.unused_id(tokenizer, data[phase]))
        file = asked.envs / "jobs" / f"{phase}.json"
        job.write(file)
        rows[phase] = _measure(asked, weights, job, file)
    limits.append(measure_machine(asked.envs))
    machine = Machine(*(max(limit[key] for limit in limits) for key in ("flops", "bandwidth")))
    shape = Shape.of(hf.config(weights.directory))
    tokens = {phase: examples.useful_tokens(data[phase]) for phase in PHASES}
    ideal = {phase: ideal_training_seconds(shape, machine, data[phase]) for phase in PHASES}
    ours = {phase: rows[phase].get(OURS, Row()) for phase in PHASES}
    return {
        "model": asked.model.name,
        "examples": {phase: len(data[phase]) for phase in PHASES},
        "useful_tokens": tokens,
        "batch": BATCH,
        "runs": asked.runs,
        "engines": {
            name: {
                phase: figures(rows[phase][name], ours[phase], tokens[phase], _rounds(asked, name))
                for phase in PHASES
            }
            for name in asked.engines
        },
        "ratios": {
            f"{name}_{phase}": _ratio(rows[phase][name])
            for name in asked.engines
            if name != OURS
            for phase in PHASES
        },
        "roofline": {"flops_per_s": machine.flops, "bytes_per_s": machine.bandwidth},
        "roofline_fraction": {phase: spread(_rates(ours[phase], ideal[phase])) for phase in PHASES},
        "seconds": time.perf_counter() - started,
    }


def _job(phase: str, data: list[Example], unused: int) -> Job:
    """The phase as configs/base.py sets it."""
    config = get_config()
    return Job(
        phase=phase,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        batch=BATCH,
        learning_rate=config[phase].learning_rate,
        clip_norm=config[phase].clip_norm,
        beta=config.dpo.beta,
        pad_id=unused,
        examples=data,
    )


def _measure(asked: argparse.Namespace, weights: Weights, job: Job, file: Path) -> dict[str, Row]:
    """One phase with all engines: rounds of malt_jax and one peer in turn, then the next peer, so
    that no more than two trainers need memory at a time."""
    rows = {name: Row() for name in asked.engines}
    ours = {name: row for name, row in rows.items() if name == OURS}
    peers = [name for name in rows if name != OURS]
    try:
        for name, row in ours.items():
            with row.noting(f"{name} {job.phase}"):
                _begin(name, row, asked, weights, job, file)
        for peer in peers or [OURS]:
            if peer != OURS:
                with rows[peer].noting(f"{peer} {job.phase}"):
                    _begin(peer, rows[peer], asked, weights, job, file)
            for number in range(asked.runs):
                for name, row in (ours | {peer: rows[peer]}).items():
                    if not row.error:
                        with row.noting(f"{name} {job.phase}"):
                            _round(name, row, job, number)
                if peer != OURS and ours and ours[OURS].seconds:
                    rows[peer].ours.append(ours[OURS].seconds[-1])
            if peer != OURS:
                rows[peer].close()
    finally:
        for row in rows.values():
            row.close()
    return rows


def _rounds(asked: argparse.Namespace, name: str) -> int:
    """How many rounds an engine has: a peer's own, and malt_jax all peers'."""
    return asked.runs * (max(1, len(asked.engines) - 1) if name == OURS else 1)


def _round(name: str, row: Row, job: Job, number: int) -> None:
    row.seconds.append(row.ask({"count": len(job.examples)})["seconds"])
    rate = examples.useful_tokens(job.examples) / row.seconds[-1]
    say(f"{job.phase} round {number + 1}: {name} {rate:.1f} useful tokens/s")


def _ratio(peer: Row) -> float | None:
    """Our speed over a peer's, the median of their rounds."""
    return None if peer.error else ratio(peer.seconds, peer.ours)


def _begin(
    name: str, row: Row, asked: argparse.Namespace, weights: Weights, job: Job, file: Path
) -> None:
    """Starts an engine, takes its first step, and an epoch that compiles what the rounds need."""
    row.worker = engines.start(
        f"{name}_{job.phase}", engines.TRAINING[name], asked.envs, weights, [str(file)]
    )
    say(f"{name} {job.phase}: cold start")
    row.first = row.ask({"count": min(BATCH, len(job.examples))})
    row.warmed()
    say(f"{name} {job.phase}: an epoch that is not counted")
    row.losses = row.ask({"count": len(job.examples)})["losses"]


def figures(row: Row, ours: Row, tokens: int, runs: int) -> dict[str, Any]:
    """One engine's figures of one phase; null for what was not measured. `runs` are the rounds it
    should have had.

    `differs` is the greatest relative difference of the first step from ours: its loss, and for DPO
    (where a fresh adapter has the loss log 2 whatever the model) the mean log-probabilities; null
    too for an adapter of another size, which does not agree.
    `epoch_loss` is the mean over the first epoch's steps, which engines cut from the data in ways
    of their own.
    """
    losses = row.first.get("losses", [None])
    differs = difference(ours.first, row.first)
    return {
        "tokens_per_s": spread(_rates(row, tokens)) if len(row.seconds) == runs else None,
        "seconds": row.seconds,
        "peak_rss_gib": gib(row.peak_rss_bytes),
        "cold_start_s": row.cold_start_s,
        "first_loss": losses[0],
        "first_logps": row.first.get("logps"),
        "epoch_loss": sum(row.losses) / len(row.losses) if row.losses else None,
        "parameters": row.first.get("parameters"),
        "differs": None if differs == math.inf else differs,
        "agrees": None if differs is None else differs <= TOLERANCE,
        "error": row.error,
    }


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float | None:
    """The greatest relative difference of two first steps; infinite for adapters of another size,
    None where one is missing."""
    if not ours or not theirs:
        return None
    if ours["parameters"] != theirs["parameters"]:
        return math.inf
    pairs = zip(
        (ours["losses"][0], *ours.get("logps", [])),
        (theirs["losses"][0], *theirs.get("logps", [])),
        strict=True,
    )
    return max(abs(a - b) / abs(a) for a, b in pairs)


def _rates(row: Row, work: float) -> list[float]:
    """`work` over the seconds of each round; nothing of an engine that failed."""
    return [] if row.error else [work / seconds for seconds in row.seconds]
