"""What a comparison came to, in plain sentences; a loss is said as a gain is."""

from malt_jax.report.comparison import Comparison, Row, Split
from malt_jax.report.headline import (
    bounds,
    difference,
    interval,
    join,
    pct,
    points,
    told,
)
from malt_jax.report.records import EqualCompute, Paired


def result(comparison: Comparison) -> str:
    """The main system's accuracy, its difference to the first baseline, and how it stands to plain
    voting at equal compute."""
    main = comparison.main_row
    if main is None:
        best = max(comparison.rows, key=lambda row: row.accuracy, default=None)
        if best is None:
            return "Nothing was compared yet."
        said = f"{comparison.main} is not there yet; best is {best.name} {pct(best.accuracy)}."
    else:
        said = f"{main.name} {pct(main.accuracy)} {interval(main.ci95)}"
        first = comparison.baselines[:1]
        said += f", {difference(_pair(main.name, first[0]))}." if first else "."
    return f"{said} {equal_compute(comparison)}".strip()


def equal_compute(comparison: Comparison) -> str:
    """Who wins where the single agent's vote may spend as much; nothing if that is not known."""
    equal = next(iter(comparison.equal_compute), None)
    if equal is None:
        return ""
    if equal.ci95[1] < 0:
        return f"At equal compute plain voting wins: {equal.system} is {_apart(equal)}."
    if equal.ci95[0] > 0:
        return f"At equal compute {equal.system} wins: it is {_apart(equal)}."
    return (
        f"At equal compute {equal.system} cannot be told from plain voting: it is {_apart(equal)}."
    )


def _apart(equal: EqualCompute) -> str:
    size = abs(100 * equal.difference)
    side = "above" if equal.difference >= 0 else "below"
    return f"{size:.1f} points {side} (95% interval {bounds(equal.ci95)})"


def spent(comparison: Comparison) -> str:
    """What the two sides of the comparison at equal compute are."""
    equal = next(iter(comparison.equal_compute), None)
    if equal is None:
        return ""
    vote = equal.vote
    short = "; no more samples were drawn" if vote.tokens < equal.tokens else ""
    return (
        f"Plain voting is the single agent's majority over {vote.k} samples: {pct(vote.accuracy)} "
        f"{interval(vote.ci95)} at {vote.tokens:,.0f} tokens a question, where {equal.system} "
        f"spends {equal.tokens:,.0f}{short}."
    )


def verdict(comparison: Comparison) -> str:
    """Which of the other systems the main one beats, to which it loses, and what plain voting
    is."""
    main = comparison.main_row
    rows = [row for row in comparison.rows if row.group in ("systems", "runs")]
    compared = [_pair(main.name, row) for row in rows if row.against] if main else []
    said = [told(main.name, compared)] if main and compared else []
    return " ".join([*said, *filter(None, [spent(comparison)])])


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
    own = f"{pct(accuracy['own'])} with its own critique"
    return f"The trained {comparison.last_role} is right on {join([own, *beside])}."


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
    return Paired(main, row.name, against.difference, against.ci95, against.n, against.p_mcnemar)
