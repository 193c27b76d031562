"""The measurements: cold start, greedy ids, a forced number of tokens, and rounds of trees."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import engines, workload
from benchmarks.engines import OURS, measure_machine, say
from benchmarks.roofline import Machine
from benchmarks.summary import Extra, Row, figures, ratios, roofline
from benchmarks.weights import Weights, derive
from benchmarks.workload import Workload
from malt_jax.models import hf

GREEDY_PROMPTS, GREEDY_TOKENS = 8, 64
FORCED_PROMPTS, FORCED_TOKENS = 16, 64
CHILDREN = 3


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as the object that --json prints."""
    started = time.perf_counter()
    weights = derive(asked.model, asked.envs / "weights")
    load = partial(workload.load, weights.directory, asked.data, limit=asked.max_new_tokens)
    work = load(count=asked.questions)
    bench = Bench(asked, weights, work, workload.first_prompts(load(count=FORCED_PROMPTS)))
    rows = {name: Row() for group in asked.engines for name in engines.SAMPLING[group]}
    limits = [measure_machine(asked.envs)]
    extra = Extra()
    try:
        for name, row in rows.items():
            with row.noting(name):
                bench.begin(name, row)
        entered = _entered(rows)
        for number in range(asked.runs):
            for name, row in rows.items():
                if name in entered and not row.error:
                    with row.noting(name):
                        bench.round(name, row, asked.seed + 1 + number, extra)
                        say(f"round {number + 1}: {name} {row.rates[-1]:.1f} useful tokens/s")
    finally:
        for row in rows.values():
            row.close()
    limits.append(measure_machine(asked.envs))
    machine = Machine(*(max(limit[key] for limit in limits) for key in ("flops", "bandwidth")))
    ours = rows.get(OURS)
    return {
        "model": asked.model.name,
        "questions": asked.questions,
        "nodes": work.nodes,
        "runs": asked.runs,
        "max_new_tokens": asked.max_new_tokens,
        "temperature": work.temperature,
        "engines": {
            name: figures(row, ours, asked.questions, asked.runs) for name, row in rows.items()
        },
        "ratios": ratios(rows),
        **roofline(machine, hf.config(weights.directory), extra, ours),
        "seconds": time.perf_counter() - started,
    }


def _entered(rows: dict[str, Row]) -> set[str]:
    """Who takes part in the rounds: of a group's engines the one that was fastest in forced
    sampling."""
    groups = [[n for n in group if n in rows] for group in engines.SAMPLING.values()]
    return {max(names, key=lambda name: rows[name].forced or 0.0) for names in groups if names}


@dataclass(frozen=True)
class Bench:
    """What all engines are given; `probe` are the prompts of greedy and forced sampling."""

    asked: argparse.Namespace
    weights: Weights
    work: Workload
    probe: list[list[int]]

    def begin(self, name: str, row: Row) -> None:
        """Starts an engine and takes what is measured once."""
        asked, warm = self.asked, self.work.temperature
        also = [str(asked.data.resolve()), str(asked.questions), str(asked.max_new_tokens)]
        [engine] = [group[name] for group in engines.SAMPLING.values() if name in group]
        row.worker = engines.start(
            name, engine, asked.envs, self.weights, also if name == OURS else []
        )
        say(f"{name}: cold start")
        self.sample(row, self.probe[:1], CHILDREN, asked.seed, asked.max_new_tokens, warm)
        row.warmed()
        say(f"{name}: greedy ids")
        probe = self.probe[:GREEDY_PROMPTS]
        sampled, _ = self.sample(row, probe, 1, asked.seed, GREEDY_TOKENS, 0.0)
        row.greedy = [rows[0] for rows in sampled]
        say(f"{name}: forced tokens")
        for _ in range(2 if name == OURS else 1):  # ours compiles in the first; peers take that out
            sampled, seconds = self.sample(
                row, self.probe, CHILDREN, asked.seed, FORCED_TOKENS, warm, stops=()
            )
        count = sum(len(tokens) for rows in sampled for tokens in rows)
        if count != FORCED_PROMPTS * CHILDREN * FORCED_TOKENS:
            raise engines.Failure(f"{FORCED_TOKENS} tokens a row were asked for, {count} came")
        row.forced = count / seconds
        if name == OURS:
            for adapters in (False, True):
                for seed in (asked.seed, asked.seed + 1000):
                    say(f"{name}: a tree that compiles")
                    row.ask({"seed": seed, "adapters": adapters})

    def round(self, name: str, row: Row, seed: int, extra: Extra) -> None:
        """One engine's trees in one round."""
        if name == OURS:
            self._our_round(row, seed, extra)
            return

        def sample(prompts: list[list[int]], children: int, seed: int) -> Any:
            limit, temperature = self.asked.max_new_tokens, self.work.temperature
            return self.sample(row, prompts, children, seed, limit, temperature)

        row.add(*workload.expand(self.work, sample, seed))

    def _our_round(self, row: Row, seed: int, extra: Extra) -> None:
        for adapters in (True, False):
            answer = row.ask({"seed": seed, "adapters": adapters})
            parents, seconds = answer["parents"], answer["seconds"]
            if adapters:
                extra.adapted.append(workload.useful_tokens(parents) / seconds)
            else:
                row.add(parents, seconds)
                extra.trees.append((parents, seconds, answer["live_rows"]))
                extra.compile_s.append(answer["compile_s"])

    def sample(
        self,
        row: Row,
        prompts: list[list[int]],
        children: int,
        seed: int,
        limit: int,
        temperature: float,
        stops: Sequence[int] | None = None,
    ) -> tuple[list[list[list[int]]], float]:
        """Completions and the worker's own seconds."""
        tokenizer = self.work.tokenizer
        shown = {token for prompt in prompts for token in prompt} | set(tokenizer.stop_ids)
        answer = row.ask(
            {
                "prompts": prompts,
                "n": children,
                "max_new_tokens": limit,
                "temperature": temperature,
                "stop_ids": tokenizer.stop_ids if stops is None else stops,
                "pad_id": min(tokenizer.control_ids - shown),
                "seed": seed,
            }
        )
        return answer["completions"], answer["seconds"]
