"""What systems made of questions: verdicts, tokens spent, and how they compare. Pure functions over
stored rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from malt_jax.evaluate import stats
from malt_jax.types import System

Row = dict[str, Any]
Passes = list[list[Row]]
"""One question's k passes: `passes[sample][depth]` is a node's row."""
Curve = dict[int, np.ndarray]
"""By number of samples k, what `votes` finds: float64[questions]."""

SCHEMA = pa.schema(
    [
        ("system", pa.string()),
        ("question_id", pa.string()),
        ("status", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("system", pa.string()),
        ("sample", pa.int32()),
        ("role", pa.string()),
        ("completion", pa.string()),
        ("answer", pa.string()),
        ("status", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Outcome:
    """What a system made of one question."""

    status: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def right(self) -> bool:
        """Whether the answer is correct."""
        return self.status == "correct"

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens


def outcome(system: System, passes: Passes) -> Outcome:
    """Scores a single agent or a team on one question.

    The answers are those of the last of its roles in the first `system.votes` passes. Tokens are
    those of the nodes used; a prompt with several samples is counted once.
    """
    used = [nodes[: len(system.roles)] for nodes in passes[: system.votes]]
    finals = [nodes[-1] for nodes in used]
    prompts = {
        (row["role"], *row["path"][:-1]): row["prompt_tokens"] for nodes in used for row in nodes
    }
    return Outcome(
        voted(finals)["status"],
        sum(prompts.values()),
        sum(row["completion_tokens"] for nodes in used for row in nodes),
    )


def debated(rows: Sequence[Row]) -> Outcome:
    """Scores one question's debate, from its rows.

    The last round votes in agent order by the rule of `stats.majority`; where nobody votes, the
    first agent's status counts. All that was read and written is counted, the first round's prompt
    once: all agents were sampled from it.
    """
    last = max(row["path"][1] for row in rows)
    finals = sorted((row for row in rows if row["path"][1] == last), key=lambda row: row["path"])
    read = [row["prompt_tokens"] for row in rows if row["path"][0] == 0 or row["path"][1] > 0]
    written = sum(row["completion_tokens"] for row in rows)
    return Outcome(voted(finals)["status"], sum(read), written)


def voted(finals: Sequence[Row], answer: str = "answer") -> Row:
    """The row that wins a majority vote by the column `answer`; the first where nobody votes."""
    return finals[stats.majority([row[answer] for row in finals]) or 0]


def score(outcomes: Sequence[Outcome]) -> Row:
    """Counts, accuracy with its Wilson interval, and tokens, summed over the questions."""
    count = Counter(outcome.status for outcome in outcomes)
    right, n = count["correct"], len(outcomes)
    return {
        **{"n": n, "correct": right},
        **share(right, n),
        **{status: count[status] for status in ("unparseable", "truncated", "unknown")},
        "tokens": {
            "prompt": sum(outcome.prompt_tokens for outcome in outcomes),
            "completion": sum(outcome.completion_tokens for outcome in outcomes),
        },
    }


def share(right: int, n: int) -> Row:
    """An accuracy with its Wilson interval."""
    return {"accuracy": right / n, "ci95": list(stats.wilson(right, n))}


def difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, seed: int, resamples: int
) -> Row:
    """mean(a) - mean(b) over the same questions, with its paired interval."""
    mean, low, high = stats.paired_bootstrap(np.asarray(a), np.asarray(b), seed, resamples)
    return {"difference": mean, "ci95": _ci95(mean, low, high, len(a), -1.0), "n": len(a)}


def _ci95(mean: float, low: float, high: float, n: int, least: float) -> list[float]:
    """The bootstrap interval of a mean of n values from `least` to 1. Over values that are all
    alike it is a point, however few they are: then it is what the mean can be if up to the share of
    questions that none of n shows in one of 40 cases (Clopper and Pearson's bound) is at the ends.
    """
    if high - low > 1e-9:
        return [low, high]
    unseen = 1 - 0.025 ** (1 / n)
    return [mean - unseen * (mean - least), mean + unseen * (1 - mean)]


def compared(a: Sequence[Outcome], b: Sequence[Outcome], seed: int, resamples: int) -> Row:
    """`difference` of two systems' accuracies, with McNemar's p."""
    left, right = (np.array([outcome.right for outcome in side]) for side in (a, b))
    return difference(left, right, seed, resamples) | {"p_mcnemar": stats.mcnemar(left, right)}


def paired(outcomes: Mapping[str, Sequence[Outcome]], seed: int, resamples: int) -> list[Row]:
    """Every two systems, the later minus the earlier."""
    return [
        {"a": later, "b": earlier} | compared(outcomes[later], outcomes[earlier], seed, resamples)
        for earlier, later in combinations(outcomes, 2)
    ]


def flows(passes: Iterable[Passes]) -> dict[str, int]:
    """How the chain changed the first role's verdict, over all passes: right or not before, right
    or not after."""
    count = dict.fromkeys(
        ["wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"], 0
    )
    for question in passes:
        for nodes in question:
            first, last = (
                "right" if node["status"] == "correct" else "wrong"
                for node in (nodes[0], nodes[-1])
            )
            count[f"{first}_to_{last}"] += 1
    return count


def sizes(most: int) -> list[int]:
    """The numbers of samples that a curve shows: 1, 2, 3, 5, 8, ... and `most`."""
    fibonacci = [1, 2]
    while fibonacci[-1] < most:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    return [k for k in fibonacci if k < most] + [most]


def votes(finals: Sequence[Sequence[Row]], k: int) -> np.ndarray:
    """Expected correctness of a vote over k of each question's answers, without bias from the
    samples that are stored: float64[questions]."""
    return np.array(
        [
            stats.majority_at_k(
                [row["answer"] for row in rows],
                [row["status"] == "correct" for row in rows],
                k,
            )
            for rows in finals
        ]
    )


def curve(finals: Sequence[Sequence[Row]]) -> Curve:
    """The votes of each of `sizes`."""
    return {k: votes(finals, k) for k in sizes(len(finals[0]))}


def at_k(finals: Sequence[Sequence[Row]], voted: Curve) -> list[Row]:
    """pass@k and majority@k of a system from its final rows, those of a question together, and
    their `curve`."""
    most = len(finals[0])
    correct = [sum(row["status"] == "correct" for row in rows) for rows in finals]
    return [
        {
            "k": k,
            "pass": float(np.mean([stats.pass_at_k(most, c, k) for c in correct])),
            "majority": float(accuracies.mean()),
        }
        for k, accuracies in voted.items()
    ]


def voting(finals: Sequence[Sequence[Row]], voted: Curve, seed: int, resamples: int) -> list[Row]:
    """The single agent's majority vote by number of samples, its `curve`: accuracy with a bootstrap
    interval over questions, and mean tokens a question, whose prompt is read once."""
    points = []
    for k, accuracies in voted.items():
        accuracy, low, high = stats.bootstrap(accuracies, seed, resamples)
        points.append(
            {
                "k": k,
                "accuracy": accuracy,
                "ci95": _ci95(accuracy, low, high, len(finals), 0.0),
                "tokens": voting_tokens(finals, k),
            }
        )
    return points


def voting_tokens(finals: Sequence[Sequence[Row]], k: int) -> float:
    """Mean tokens a question of k samples of one prompt."""
    prompt = np.mean([rows[0]["prompt_tokens"] for rows in finals])
    completion = np.mean([row["completion_tokens"] for rows in finals for row in rows])
    return float(prompt + k * completion)


def votes_for(finals: Sequence[Sequence[Row]], tokens: float) -> int:
    """How many samples of the single agent cost at least `tokens` a question."""
    first, both = (voting_tokens(finals, k) for k in (1, 2))
    return max(1, int(np.ceil((tokens - first) / max(both - first, 1.0))) + 1)


def equal_compute(
    name: str,
    system: Sequence[Outcome],
    finals: Sequence[Sequence[Row]],
    voted: Curve,
    seed: int,
    resamples: int,
) -> Row:
    """A system against plain voting of the single agent at no fewer tokens (at the most samples
    that are stored, where those are fewer). `voted` is their `curve`."""
    tokens = float(np.mean([outcome.tokens for outcome in system]))
    k = min(votes_for(finals, tokens), len(finals[0]))
    vote = voted[k] if k in voted else votes(finals, k)
    accuracy, low, high = stats.bootstrap(vote, seed, resamples)
    gap = difference([float(outcome.right) for outcome in system], vote, seed, resamples)
    return {
        "system": name,
        "tokens": tokens,
        "k": k,
        "voting": {
            "accuracy": accuracy,
            "ci95": _ci95(accuracy, low, high, len(finals), 0.0),
            "tokens": voting_tokens(finals, k),
        },
        "difference": gap["difference"],
        "ci95": gap["ci95"],
    }
