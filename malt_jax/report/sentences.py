"""What a comparison came to, in plain sentences; a loss is said as a gain is."""

from malt_jax.report.comparison import Comparison, Row, Split
from malt_jax.report.headline import (
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
    """The main system's accuracy, its difference to the best baseline, and how it stands to plain
    voting at equal compute."""
    main = comparison.main_row
    if main is None:
        best = max(comparison.rows, key=lambda row: row.accuracy, default=None)
        if best is None:
            return "Nothing was compared yet."
        said = f"{comparison.main} is not there yet; best is {best.name} {pct(best.accuracy)}."
    else:
        said = f"{main.name} {pct(main.accuracy)} {interval(main.ci95)}"
        best = max(comparison.baselines, key=lambda row: row.accuracy, default=None)
        said += f", {difference(_pair(main.name, best))}." if best else "."
    return f"{said} {equal_compute(comparison.equal_compute)}".strip()


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
    return Paired(main, row.name, against.difference, against.ci95, against.n, against.p_mcnemar)
