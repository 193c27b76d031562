"""A comparison as text, for the terminal."""

from malt_jax.evaluate.scoring import Row


def table(comparison: Row) -> str:
    """The rows with the paper's own numbers beside them, then each seed's accuracies, the primary
    comparison and what failed."""
    rows = comparison["rows"]
    width = max(len(row["name"]) for row in rows) + 2
    lines = [
        f"{'':{width}}{'accuracy':>9} {'95% interval':>14} {'paper':>6} {'main - this':>12} "
        f"{'95% interval':>15} {'tokens':>7}",
        *(_row(row, width) for row in rows),
        *_by_seed(rows, width),
    ]
    if primary := comparison["primary"]:
        low, high = (100 * bound for bound in primary["ci95"])
        lines.append(
            f"primary: {comparison['main']} minus {primary['against']}, the best of "
            f"{primary['rivals']} rivals: {100 * primary['difference']:+.1f} "
            f"[{low:+.1f}, {high:+.1f}], p = {primary['p']:.2g}: {primary['verdict']}"
        )
    lines += [f"failed: {name}: {row['reason']}" for name, row in comparison["failed"].items()]
    return "\n".join(lines)


def _row(row: Row, width: int) -> str:
    low, high = (100 * bound for bound in row["ci95"])
    tokens = sum(row["tokens"].values()) / row["n"]
    reported = "" if row["paper"] is None else f"{100 * row['paper']:.1f}"
    line = f"{row['name']:{width}}{100 * row['accuracy']:8.1f}% "
    line += f"{f'[{low:.1f}, {high:.1f}]':>14} {reported:>6} "
    if other := row["against_main"]:
        low, high = (100 * bound for bound in other["ci95"])
        line += f"{100 * other['difference']:+12.1f} {f'[{low:+.1f}, {high:+.1f}]':>15} "
    else:
        line += " " * 29
    return f"{line}{tokens:7.0f}"


def _by_seed(rows: list[Row], width: int) -> list[str]:
    """A column a seed."""
    repeated = [row for row in rows if "by_seed" in row]
    seeds = list(dict.fromkeys(seed for row in repeated for seed in row["by_seed"]))
    if not seeds:
        return []
    lines = [f"{'':{width}}" + "".join(f"{f'seed {seed}':>9}" for seed in seeds)]
    for row in repeated:
        shares = [row["by_seed"].get(seed) for seed in seeds]
        cells = ["" if share is None else f"{100 * share:.1f}%" for share in shares]
        lines.append(f"{row['name']:{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return lines
