"""A round of learning in figures: what its trees were like, what they gave to learn from, and how
the team that was trained of them does on the development split."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from malt_jax import credit
from malt_jax.config.settings import Settings
from malt_jax.rollout import records
from malt_jax.workdir import shards
from malt_jax.workdir.storage import read_json

Row = dict[str, Any]

SYSTEMS = ("malt", "malt_greedy")
"""What every round evaluates on the development split."""
BASELINES = ("ma", "ma_greedy")
"""What the first evaluates beside it: the team before any round."""
_COLUMNS = (
    *("question_id", "node", "parent", "role", "score", "answer", "status", "finish_reason"),
    *("prompt_tokens", "completion_tokens", "behaviour_logprobs"),
)
_COLLAPSED = 0.5  # of the first round's figure


@dataclass
class _Counts:
    """Sums over one role's samples."""

    samples: int = 0
    tokens: int = 0
    surprise: float = 0.0  # nats
    cut_short: int = 0


@dataclass
class _Sums:
    """Sums over a round's trees."""

    roles: dict[str, _Counts] = field(default_factory=lambda: defaultdict(_Counts))
    questions: int = 0
    undecided: int = 0
    distinct: int = 0
    read: int = 0


def figures(directory: Path, settings: Settings, divergence: Mapping[str, float]) -> Row:
    """The figures of the round whose work directory this is, once it is evaluated.

    - `threshold`: theta; `temperature` that trees were drawn at; `questions`: how many were asked;
      `contrast`: the share of them whose value, the mean over all leaves, is neither 0 nor 1;
      `distinct_answers`: how many different last answers a question has in the mean.
    - `tokens`: read and written for the trees. By role, `mean_tokens` of a completion, the share
      `truncated`, and `entropy`: the mean of -log p in nats a token under what was sampled from,
      an estimate of its entropy; beside it the role's counts of `datasets/yield.json`, and of
      `divergence` its `kl_to_base`, of the policy that the round trained, in nats a token.
    - `accuracy` and `ci95` on the development split, by system.
    """
    sums = _Sums()
    for path in shards.paths(directory / "trees"):
        _add(sums, records.read(path, _COLUMNS, arrays="_logprobs"), settings.chain[-1])
    yields = read_json(directory / "datasets" / "yield.json")
    systems = read_json(directory / "eval" / "results.json")["systems"]
    written = sum(counts.tokens for counts in sums.roles.values())
    return {
        "round": settings.rounds.number,
        "threshold": settings.credit.threshold,
        "temperature": settings.sample_of_trees.temperature,
        "questions": sums.questions,
        "contrast": _share(sums.undecided, sums.questions),
        "distinct_answers": _share(sums.distinct, sums.questions),
        "tokens": {"read": sums.read, "written": written},
        "roles": {
            role: {
                "mean_tokens": _share(counts.tokens, counts.samples),
                "truncated": _share(counts.cut_short, counts.samples),
                "entropy": _share(counts.surprise, counts.tokens),
                "kl_to_base": divergence.get(role),
                **{name: n for name, n in yields[role].items() if isinstance(n, int)},
            }
            for role, counts in sums.roles.items()
        },
        "accuracy": {name: row["accuracy"] for name, row in systems.items()},
        "ci95": {name: row["ci95"] for name, row in systems.items()},
        "n": max(row["n"] for row in systems.values()),
    }


def best(rounds: Sequence[Mapping[str, Any]]) -> int:
    """The number of the round whose team is right most often on the development split, in the mean
    of its sampled passes; among equals the first."""
    return int(max(rounds, key=lambda row: (row["accuracy"]["malt"], -row["round"]))["round"])


def collapses(first: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What of a round's entropy and lengths has fallen below half of the first round's, a line
    each, with the figures: a team that says one thing alone has nothing left to choose from."""
    for role, before in first["roles"].items():
        after = now["roles"].get(role, before)
        for name, says in (
            ("entropy", "{:.3g} nats of entropy a token"),
            ("mean_tokens", "{:.3g} tokens a completion"),
        ):
            if after[name] < _COLLAPSED * before[name]:
                yield (
                    f"round {now['round']}: {role}: {says.format(after[name])}, after "
                    f"{before[name]:.3g} in round {first['round']}; if accuracy falls as well, "
                    "raise config.sample.temperature or lower the learning rates of its phases"
                )


def _add(sums: _Sums, rows: Sequence[Row], last: str) -> None:
    """Adds a shard's trees."""
    answers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        counts, question = sums.roles[row["role"]], row["question_id"]
        counts.samples += 1
        counts.tokens += row["completion_tokens"]
        if row["behaviour_logprobs"] is not None:
            counts.surprise -= float(np.sum(row["behaviour_logprobs"], dtype=np.float64))
        counts.cut_short += row["finish_reason"] == "length"
        sums.read += row["prompt_tokens"]
        if row["role"] == last and row["answer"]:
            answers[question].add(row["answer"])
    sums.questions += len({row["question_id"] for row in rows})
    sums.undecided += sum(0.0 < value < 1.0 for value in credit.root_values(rows).values())
    sums.distinct += sum(map(len, answers.values()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
