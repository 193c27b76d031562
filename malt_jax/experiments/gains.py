"""Where a gain comes from, and how many questions it takes to see it."""

from collections.abc import Iterable

from malt_jax.evaluate import stats
from malt_jax.evaluate.scoring import Row
from malt_jax.experiments.evaluated import Evaluated
from malt_jax.types import System

_UNREAD = ("unparseable", "truncated", "unknown")


def compared(systems: Iterable[System]) -> list[tuple[str, str]]:
    """The gains to take apart: from each baseline to the trained team with as many votes, the
    largest team first."""
    asked = [system for system in systems if system.kind != "debate"]
    teams = [system for system in asked if system.trained and system.kind == "team"]
    return [
        (baseline.name, team.name)
        for team in sorted(teams, key=lambda team: team.rank, reverse=True)
        for baseline in asked
        if not baseline.trained
        and (baseline.votes, baseline.decoding) == (team.votes, team.decoding)
    ]


def shares(run: Evaluated, a: str, b: str) -> Row:
    """How much of a gain is format: answers right in b that could not be read in a, or were read
    and wrong; and what b lost."""
    n, unread, wrong, lost = len(run.outcomes[b]), 0.0, 0.0, 0.0
    for question, after in run.outcomes[b].items():
        # The passes of a question have the same random numbers in both systems.
        pairs = list(zip(run.outcomes[a][question], after, strict=False))
        unread += sum(now.right and was.status in _UNREAD for was, now in pairs) / len(pairs)
        wrong += sum(now.right and was.status == "wrong" for was, now in pairs) / len(pairs)
        lost += sum(was.right and not now.right for was, now in pairs) / len(pairs)
    return {
        "from": a,
        "to": b,
        "gain": (unread + wrong - lost) / n,
        "became_parseable": unread / n,
        "became_right": wrong / n,
        "lost": lost / n,
    }


def power(run: Evaluated, main: str) -> Row | None:
    """How many questions it takes to see the difference between the main system and the strongest
    baseline that was evaluated here."""
    baselines = [s.name for s in run.systems.values() if not s.trained and s.name != main]
    if not baselines:
        return None
    correct = {name: sum(run.right(name).values()) for name in (main, *baselines)}
    strongest = max(baselines, key=lambda name: correct[name])
    right, baseline = run.right(main), run.right(strongest)
    n = len(right)
    difference = (correct[main] - correct[strongest]) / n
    if not difference:
        return None
    # The share of questions that set them apart, where each has one answer.
    discordant = sum((right[question] - baseline[question]) ** 2 for question in right) / n
    return {
        "against": strongest,
        "discordant": discordant,
        "difference": difference,
        "questions": stats.questions_needed(difference, discordant),
        "have": n,
    }
