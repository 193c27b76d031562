"""What was measured, and the figures made of it."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from benchmarks import workload
from benchmarks.engines import OURS, SAMPLING, Running
from benchmarks.roofline import Machine, Parent, Shape, ideal_seconds
from malt_jax.models.config import LlamaConfig


@dataclass
class Row(Running):
    """One engine's figures so far. `rates` are useful tokens a second, one a round."""

    greedy: list[list[int]] | None = None
    forced: float | None = None
    rates: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, parents: list[Parent], seconds: float) -> None:
        """Counts one round's trees."""
        tokens = workload.useful_tokens(parents)
        self.rates.append(tokens / seconds)
        self.tokens.append(tokens)
        self.seconds.append(seconds)


@dataclass
class Extra:
    """What is measured of malt_jax alone, one a round: ideal over measured seconds is worked out
    at the end, when the machine's limits are known; `adapted` are rates with adapters."""

    trees: list[tuple[list[Parent], float, float]] = field(default_factory=list)
    adapted: list[float] = field(default_factory=list)
    compile_s: list[float] = field(default_factory=list)  # not in the trees' seconds


def figures(row: Row, ours: Row | None, questions: int, runs: int) -> dict[str, Any]:
    """One engine's figures; null for what was not measured."""
    whole = len(row.rates) == runs
    rate = row.rates if whole else []
    hourly = [3600 * questions / seconds for seconds in row.seconds] if whole else []
    return {
        "useful_tokens_per_s": spread(rate),
        "questions_per_hour": spread(hourly),
        "useful_tokens": row.tokens,
        "seconds": row.seconds,
        "forced_tokens_per_s": row.forced,
        "cold_start_s": row.cold_start_s,
        "peak_rss_gib": gib(row.peak_rss_bytes),
        "greedy_agreement": _agreement(ours.greedy if ours else None, row.greedy),
        "error": row.error,
    }


def spread(values: list[float]) -> dict[str, float] | None:
    """Median, least and most; None of nothing."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def gib(count: int | None) -> float | None:
    """Bytes in GiB."""
    return None if count is None else count / 2**30


def _agreement(
    ours: list[list[int]] | None, theirs: list[list[int]] | None
) -> dict[str, float] | None:
    """Share of rows that are the same, and the mean share of a row before the first difference."""
    if not ours or not theirs:
        return None
    pairs = list(zip(ours, theirs, strict=True))
    lengths = [max(len(a), len(b)) for a, b in pairs]
    same = [
        next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        for a, b in pairs
    ]
    return {
        "identical": sum(a == b for a, b in pairs) / len(pairs),
        "prefix": statistics.mean(n / of for n, of in zip(same, lengths, strict=True)),
    }


def ratios(rows: dict[str, Row]) -> dict[str, float | None]:
    """Our useful tokens/s over each peer's, the median of the rounds' ratios."""

    def best(group: str) -> list[float]:
        peers = [rows[name] for name in SAMPLING[group] if name in rows]
        whole = [peer.rates for peer in peers if peer.rates and not peer.error]
        return [max(rates) for rates in zip(*whole, strict=True)]

    ours = rows.get(OURS, Row())
    rates = [] if ours.error else ours.rates
    return {group: ratio(rates, best(group)) for group in SAMPLING if group != OURS}


def ratio(ours: list[float], theirs: list[float]) -> float | None:
    """The median of the rounds' ratios; None where one has no rounds."""
    if not ours or not theirs:
        return None
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def roofline(
    machine: Machine, config: LlamaConfig, extra: Extra, ours: Row | None
) -> dict[str, Any]:
    """The machine's limits, how near our trees came to them, and what adapters cost."""
    shape = Shape.of(config)
    fractions = [
        ideal_seconds(shape, machine, parents, live_rows) / seconds
        for parents, seconds, live_rows in extra.trees
    ]
    plain = ours.rates if ours else []
    cost = [100 * (1 - b / a) for a, b in zip(plain, extra.adapted, strict=False)]
    return {
        "roofline": {"flops_per_s": machine.flops, "bytes_per_s": machine.bandwidth},
        "roofline_fraction": spread(fractions),
        "adapters_cost_percent": spread(cost),
        "compile_s": spread(extra.compile_s),
    }
