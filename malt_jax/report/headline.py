"""The main result in words, as plain when MALT loses as when it wins."""

from collections.abc import Mapping, Sequence

from malt_jax import types
from malt_jax.report.records import EqualCompute, Evaluation, Interval, Paired
from malt_jax.report.svg import typeset

# By any text: a file may hold another price.
PRICES: Mapping[str, str] = dict(types.PRICES.items())
VOTERS = {"sa": "single agent", "generator": "trained generator"}


def pct(x: float) -> str:
    """0.782 -> "78.2%"."""
    return f"{100 * x:.1f}%"


def points(x: float) -> str:
    """0.17 -> "+17.0", in percentage points; 0 has no sign."""
    text = f"{100 * x:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else typeset(text)


def interval(ci95: Interval) -> str:
    """(0.743, 0.816) -> "[74.3, 81.6]", in percent."""
    return typeset("[" + ", ".join(f"{100 * x:.1f}" for x in ci95) + "]")


def main_system(evaluation: Evaluation) -> str | None:
    """The trained system that stands for the run, the team's vote if there; None without one."""
    trained = [score.system for score in evaluation.systems if score.system.trained]
    return types.main_system(trained).name if trained else None


def description(system: types.System) -> str:
    """A system's title, and what it does not say: which role the single agent is, who is trained,
    how many answers vote."""
    single = system.kind == "single" and bool(system.roles)
    who = system.roles[0] if single else "the trained team" if system.trained else ""
    votes = f"majority of {system.votes}" if system.voted else ""
    more = ", ".join(filter(None, [who, votes]))
    return f"{system.title} ({more})" if more else system.title


def against(evaluation: Evaluation, name: str) -> list[Paired]:
    """The comparisons of `name` with each baseline, read as `name` minus the baseline; with the
    most accurate baseline first."""
    read = {(p.a, p.b): p for pair in evaluation.paired for p in (pair, pair.flipped())}
    baselines = [score for score in evaluation.systems if not score.system.trained]
    baselines.sort(key=lambda score: -score.accuracy)
    return [read[name, other.name] for other in baselines if (name, other.name) in read]


def sentence(evaluation: Evaluation) -> str:
    """The main system's accuracy, its paired difference to the best baseline, and how it stands to
    the votes that spend as much."""
    name = main_system(evaluation)
    if name is None:
        best = max(evaluation.systems, key=lambda system: system.accuracy, default=None)
        if best is None:
            return "No system was evaluated."
        return f"The trained team was not evaluated; best is {best.name} {pct(best.accuracy)}."
    system = next(system for system in evaluation.systems if system.name == name)
    start = f"{name} {pct(system.accuracy)} {interval(system.ci95)}"
    compared = against(evaluation, name)
    said = f"{start}, {difference(compared[0])}." if compared else f"{start}."
    return f"{said} {equal_compute(evaluation.equal_compute, evaluation.titles)}".strip()


def equal_compute(rows: Sequence[EqualCompute], titles: Mapping[str, str] = VOTERS) -> str:
    """Who wins where the vote of a single role may spend as much: by each price the strongest
    vote; nothing if that is not known. `titles` are the voters'."""
    prices = list(dict.fromkeys(row.price for row in rows))
    several = len({row.voter for row in rows}) > 1
    said = []
    for price in prices:
        strongest = max(
            (row for row in rows if row.price == price), key=lambda row: row.vote.accuracy
        )
        paid = f", counting {PRICES.get(price, price)}," if len(prices) > 1 else ""
        voter = titles.get(strongest.voter, strongest.voter)
        voting = f"plain voting of the {voter}" if several else "plain voting"
        said.append(_at_equal_compute(strongest, paid, voting))
    return " ".join(said)


def _at_equal_compute(equal: EqualCompute, paid: str, voting: str) -> str:
    side = "above" if equal.difference >= 0 else "below"
    apart = f"{abs(100 * equal.difference):.1f} points {side} (95% interval {bounds(equal.ci95)})"
    if equal.ci95[1] < 0:
        return f"At equal compute{paid} {voting} wins: {equal.system} is {apart}."
    if equal.ci95[0] > 0:
        return f"At equal compute{paid} {equal.system} wins: it is {apart}."
    return f"At equal compute{paid} {equal.system} cannot be told from {voting}: it is {apart}."


def difference(pair: Paired) -> str:
    """So many points over (or below) the other, with the paired interval."""
    if pair.difference < 0:
        size = f"{-100 * pair.difference:.1f} points below {pair.b}"
    else:
        size = f"{points(pair.difference)} points over {pair.b}"
    return f"{size} (paired 95% interval {bounds(pair.ci95)})"


def bounds(ci95: Interval) -> str:
    """(0.13, 0.21) -> "13.0 to 21.0"."""
    low, high = (typeset(f"{100 * x:.1f}") for x in ci95)
    return f"{low} to {high}"


def verdict(evaluation: Evaluation) -> str:
    """Where MALT wins, where it loses, and where the interval holds zero; and at what cost."""
    name = main_system(evaluation)
    compared = against(evaluation, name) if name else []
    if name is None or not compared:
        return ""
    systems = {system.name: system for system in evaluation.systems}
    spent = systems[name].tokens_per_question
    costs = [
        f"{spent / score.tokens_per_question:.1f} times {score.name}"
        for score in evaluation.systems
        if score.system.kind == "single" and not score.system.trained and score.tokens_per_question
    ]
    cost = f" Tokens a question: {join(costs)}." if costs else ""
    return f"{told(name, compared)}{cost}"


def told(name: str, compared: list[Paired]) -> str:
    """Whom `name` beats, to whom it loses, and from whom it cannot be told."""
    groups = {
        "beats": [pair.b for pair in compared if pair.ci95[0] > 0],
        "loses to": [pair.b for pair in compared if pair.ci95[1] < 0],
        "cannot be told from": [pair.b for pair in compared if pair.ci95[0] <= 0 <= pair.ci95[1]],
    }
    # Whoever comes first among the compared is named first.
    order = [pair.b for pair in compared]
    groups = {verb: names for verb, names in groups.items() if names}
    verbs = sorted(groups, key=lambda verb: order.index(groups[verb][0]))
    said = [f"{verb} {join(groups[verb])}" for verb in verbs]
    return f"At 95% {name} {join(said)}."


def join(words: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
