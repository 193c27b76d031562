"""Majority votes by number of samples, and what a system is worth beside the vote of a single role
that spends as much. Pure functions over stored rows."""

from collections.abc import Sequence

import numpy as np

from malt_jax.evaluate import stats
from malt_jax.evaluate.scoring import (
    Outcomes,
    Row,
    cost,
    difference,
    interval_of_mean,
    right,
)
from malt_jax.types import Price

Curve = dict[int, np.ndarray]
"""By number of samples k, what `votes` finds: float64[questions]."""


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


def curve_points(
    finals: Sequence[Sequence[Row]], voted: Curve, seed: int, resamples: int
) -> list[Row]:
    """The single agent's majority vote by number of samples, its `curve`: accuracy with a bootstrap
    interval over questions, and mean tokens a question, whose prompt is read once."""
    points = []
    for k, accuracies in voted.items():
        accuracy, low, high = stats.bootstrap(accuracies, seed, resamples)
        points.append(
            {
                "k": k,
                "accuracy": accuracy,
                "ci95": interval_of_mean(accuracy, low, high, len(finals), 0.0),
                "tokens": voting_tokens(finals, k),
            }
        )
    return points


def voting_tokens(
    finals: Sequence[Sequence[Row]], k: int, price: Price = "read_and_written"
) -> float:
    """Mean tokens a question of k samples of one prompt, which is read once."""
    prompt = np.mean([rows[0]["prompt_tokens"] for rows in finals])
    completion = np.mean([row["completion_tokens"] for rows in finals for row in rows])
    return float((prompt if price == "read_and_written" else 0.0) + k * completion)


def votes_for(
    finals: Sequence[Sequence[Row]], tokens: float, price: Price = "read_and_written"
) -> int:
    """How many samples of a single role cost at least `tokens` a question."""
    first, both = (voting_tokens(finals, k, price) for k in (1, 2))
    return max(1, int(np.ceil((tokens - first) / max(both - first, 1.0))) + 1)


def equal_compute(
    system: Sequence[Outcomes],
    finals: Sequence[Sequence[Row]],
    voted: Curve,
    price: Price,
    seed: int,
    resamples: int,
) -> Row:
    """A system against plain voting of a single role at no fewer tokens (at the most samples that
    are stored, where those are fewer). `finals` are the single role's samples of each question,
    those of any system of one role, and `voted` their `curve`."""
    tokens = cost(system, price)
    k = min(votes_for(finals, tokens, price), len(finals[0]))
    vote = voted[k] if k in voted else votes(finals, k)
    accuracy, low, high = stats.bootstrap(vote, seed, resamples)
    gap = difference([*map(right, system)], vote, seed, resamples)
    return {
        "price": price,
        "tokens": tokens,
        "k": k,
        "voting": {
            "accuracy": accuracy,
            "ci95": interval_of_mean(accuracy, low, high, len(finals), 0.0),
            "tokens": voting_tokens(finals, k, price),
        },
        "difference": gap["difference"],
        "ci95": gap["ci95"],
    }
