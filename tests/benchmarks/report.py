"""A benchmark's result as a table for people."""

from collections.abc import Mapping
from typing import Any

_SAMPLING = (
    ("useful tokens/s", 25),
    ("questions/h", 11),
    ("forced tokens/s", 15),
    ("greedy: same, prefix", 20),
    ("cold start s", 12),
    ("peak GiB", 8),
)
_TRAINING = (
    ("useful tokens/s", 25),
    ("ours over it", 12),
    ("peak GiB", 8),
    ("cold start s", 12),
    ("first loss", 10),
    ("differs", 8),
    ("epoch loss", 10),
)


def sampling(result: Mapping[str, Any]) -> str:
    """The JSON object in a few lines: engines, ratios and the roofline."""
    lines = [
        f"{result['questions']} questions, {result['nodes']} nodes of up to"
        f" {result['max_new_tokens']} tokens at temperature {result['temperature']};"
        f" {result['runs']} rounds: median [least, most]",
        f"{'':20}" + "".join(f"{title:>{width + 2}}" for title, width in _SAMPLING),
    ]
    for name, row in result["engines"].items():
        greedy = row["greedy_agreement"]
        cells = (
            _spread(row["useful_tokens_per_s"]),
            _number((row["questions_per_hour"] or {}).get("median")),
            _number(row["forced_tokens_per_s"]),
            f"{greedy['identical']:.0%}, {greedy['prefix']:.0%}" if greedy else "-",
            _number(row["cold_start_s"]),
            _number(row["peak_rss_gib"], 2),
        )
        columns = zip(cells, _SAMPLING, strict=True)
        lines.append(f"{name:20}" + "".join(f"{cell:>{width + 2}}" for cell, (_, width) in columns))
        if row["error"]:
            lines.append(f"    failed: {row['error']}")
    for name, ratio in result["ratios"].items():
        lines.append(f"malt_jax / {name}: {_number(ratio, 2)}")
    roofline = result["roofline"]
    lines += [
        f"roofline: {roofline['flops_per_s'] / 1e9:.0f} GFLOP/s,"
        f" {roofline['bytes_per_s'] / 1e9:.1f} GB/s;"
        f" malt_jax's tree at {_spread(result['roofline_fraction'], 2)} of it",
        f"three adapters cost {_spread(result['adapters_cost_percent'])} %",
    ]
    return "\n".join(lines)


def training(result: Mapping[str, Any]) -> str:
    """The JSON object in a few lines, a table a phase."""
    lines = [f"{result['batch']} examples a step; {result['runs']} rounds: median [least, most]"]
    fractions, limit = result["roofline_fraction"], result["roofline"]["flops_per_s"]
    for phase, count in result["examples"].items():
        lines += [
            f"{phase}: {count} examples, {result['useful_tokens'][phase]} useful tokens a round;"
            f" malt_jax at {_spread(fractions[phase], 2)} of {limit / 1e9:.0f} GFLOP/s",
            f"{'':12}" + "".join(f"{title:>{width + 2}}" for title, width in _TRAINING),
        ]
        for name, phases in result["engines"].items():
            row = phases[phase]
            cells = (
                _spread(row["tokens_per_s"]),
                _number(result["ratios"].get(f"{name}_{phase}"), 2),
                _number(row["peak_rss_gib"], 2),
                _number(row["cold_start_s"]),
                _number(row["first_loss"], 4),
                "-" if row["differs"] is None else f"{row['differs']:.0e}",
                _number(row["epoch_loss"], 4),
            )
            columns = zip(cells, _TRAINING, strict=True)
            lines.append(
                f"{name:12}" + "".join(f"{cell:>{width + 2}}" for cell, (_, width) in columns)
            )
            if row["error"]:
                lines.append(f"    failed: {row['error']}")
            if row["agrees"] is False:
                lines.append("    does other work than malt_jax: its figures compare nothing")
    return "\n".join(lines)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _spread(value: Mapping[str, float] | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    least, most = value["min"], value["max"]
    return f"{value['median']:.{digits}f} [{least:.{digits}f}, {most:.{digits}f}]"
