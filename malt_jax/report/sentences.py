"""What a comparison came to, in plain sentences; a loss is said as a gain is."""

from collections.abc import Sequence

from malt_jax.report.comparison import Comparison, Row, Split
from malt_jax.report.headline import (
    bounds,
    difference,
    equal_compute,
    interval,
    join,
    pct,
    points,
    told,
)
from malt_jax.report.records import Paired


def result(comparison: Comparison) -> str:
    """The main system's accuracy, how it stands to the best of its rivals, and to plain voting at
    equal compute."""
    main = comparison.main_row
    if main is None:
        best = max(comparison.rows, key=lambda row: row.accuracy, default=None)
        if best is None:
            return "Nothing was compared yet."
        said = f"{comparison.main} is not there yet; best is {best.name} {pct(best.accuracy)}."
    else:
        said = f"{main.name} {pct(main.accuracy)} {interval(main.ci95)}"
        if comparison.primary:
            said += f". {primary(comparison)}"
        else:
            best = max(comparison.rivals, key=lambda row: row.accuracy, default=None)
            said += f", {difference(_pair(main.name, best))}." if best else "."
    if comparison.seed_names:  # votes at equal compute are rows, the best of them named already
        return said
    return f"{said} {equal_compute(comparison.equal_compute)}".strip()


def primary(comparison: Comparison) -> str:
    """Who wins: the main system or the best of its rivals, by name and with its difference."""
    test, main = comparison.primary, comparison.main
    if test is None:
        return ""
    best = next((row for row in comparison.rows if row.name == test.against), None)
    rival = f"{test.against} {pct(best.accuracy)}" if best else test.against
    among = f", the best of {test.rivals} rivals" if test.rivals > 1 else ""
    seeds = f", over {test.seeds} seeds" if test.seeds > 1 else ""
    side = "above" if test.difference >= 0 else "below"
    gap = (
        f"{abs(100 * test.difference):.1f} points {side} {rival}{among}{seeds} (95% interval "
        f"{bounds(test.ci95)})"
    )
    if test.verdict == "undecided":
        return f"Undecided: {main} is {gap}."
    return f"{main} {test.verdict}: it is {gap}."


def split_read(split: str, test_reads: tuple[int, int]) -> str:
    """Which split all figures are of, and how often the test split was read."""
    times, configurations = test_reads
    said = f"All figures are of the {split} split."
    if not times:
        return said
    often = "once" if times == 1 else f"{times} times"
    by = "configuration" if configurations == 1 else "configurations"
    return f"{said} The test split was read {often}, by {configurations} {by}."


def provenance(comparison: Comparison) -> str:
    """What `split_read` says of a comparison, and what its primary one is."""
    said = [split_read(comparison.split, comparison.test_reads)]
    if test := comparison.primary:
        said.append(
            f"The primary comparison is {comparison.main} with {test.against}, its best rival"
            f"{' by the mean over seeds' if test.seeds > 1 else ''} on these questions (p = "
            f"{test.p:.2g}): the best of many looks better than it is, so that a win over it is "
            "claimed with caution; a loss to it needs Holm's p over all rivals, "
            f"{test.p_holm:.2g}."
        )
    return " ".join(said)


def p_holm(comparison: Comparison, row: Row) -> str:
    """The adjusted p-value of a row's difference, or that it is the primary one's."""
    if comparison.primary and row.name == comparison.primary.against:
        return "primary"
    value = row.against.p_holm if row.against else None
    return "–" if value is None else f"{value:.2g}"


def spent(comparison: Comparison) -> str:
    """What the two sides of a comparison at equal compute are. Of several a table tells it."""
    if len(comparison.equal_compute) != 1:
        return ""
    (equal,) = comparison.equal_compute
    vote = equal.vote
    short = "; no more samples were drawn" if vote.tokens < equal.tokens else ""
    return (
        f"Plain voting is the single agent's majority over {vote.k} samples: {pct(vote.accuracy)} "
        f"{interval(vote.ci95)} at {vote.tokens:,.0f} tokens a question, where {equal.system} "
        f"spends {equal.tokens:,.0f}{short}."
    )


def verdict(comparison: Comparison) -> str:
    """Which of the other systems the main one beats, to which it loses, and what plain voting is;
    over seeds by Holm's p-values."""
    main = comparison.main_row
    rows = [row for row in comparison.rows if row.group in ("systems", "runs")]
    if comparison.seed_names:
        return _told_by_holm(comparison, rows)
    compared = [_pair(main.name, row) for row in rows if row.against] if main else []
    said = [told(main.name, compared)] if main and compared else []
    return " ".join([*said, *filter(None, [spent(comparison)])])


def _told_by_holm(comparison: Comparison, rows: Sequence[Row]) -> str:
    verdicts: dict[str, list[str]] = {"beats": [], "loses to": [], "cannot be told from": []}
    for row in rows:
        against = row.against
        if against is None or against.p_holm is None:
            continue  # the primary comparison is the headline
        ahead = "beats" if against.difference > 0 else "loses to"
        verdicts[ahead if against.p_holm <= 0.05 else "cannot be told from"].append(row.name)
    said = [f"{verb} {join(names)}" for verb, names in verdicts.items() if names]
    return f"By Holm's p-values {comparison.main} {join(said)}." if said else ""


def split(part: Split) -> str:
    """Where one gain comes from."""
    return (
        f"From {part.before} to {part.after}: {points(part.gain)} points, which are "
        f"{points(part.became_parseable)} for answers that could not be read before, "
        f"{points(part.became_right)} for wrong answers put right and {points(-part.lost)} for "
        "right answers lost."
    )


def critiques(comparison: Comparison) -> str:
    """What its own critique is worth to the last role."""
    accuracy = {critique.kind: critique.accuracy for critique in comparison.critiques}
    if "own" not in accuracy:
        return ""
    others = {"other": "with another question's critique", "none": "without any"}
    beside = [
        f"{pct(accuracy[kind])} {words} ({points(accuracy[kind] - accuracy['own'])} points)"
        for kind, words in others.items()
        if kind in accuracy
    ]
    said = [f"{pct(accuracy['own'])} with its own critique", *beside]
    return f"The trained {comparison.last_role} is right on {join(said)}."


def power(comparison: Comparison) -> str:
    """Whether there were questions enough."""
    test = comparison.power
    if test is None:
        return ""
    to = f" to {test.against}" if test.against else ""
    enough = "which there are" if test.have >= test.questions else f"and there are {test.have:,}"
    return (
        f"A difference of {abs(100 * test.difference):.1f} points{to}, where "
        f"{pct(test.discordant)} of the questions set the two systems apart, takes "
        f"{test.questions:,} questions to show with 80% power, {enough}."
    )


def _pair(main: str, row: Row) -> Paired:
    against = row.against
    assert against is not None
    return Paired(main, row.name, against.difference, against.ci95, against.n, against.p)
