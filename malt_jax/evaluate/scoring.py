"""What systems made of questions: verdicts, tokens spent, and how they compare. Pure functions over
stored rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from malt_jax import credit
from malt_jax.evaluate import stats
from malt_jax.tasks.votes import majority
from malt_jax.types import Price, System
from malt_jax.workdir import shards

Row = dict[str, Any]
Passes = list[list[Row]]
"""One question's k passes: `passes[sample][depth]` is a node's row."""

SCHEMA = pa.schema(
    [
        ("system", pa.string()),
        ("question_id", pa.string()),
        ("sample", pa.int32()),  # the pass; 0 for a vote
        ("status", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("novel_tokens", pa.int32()),
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
    """One answer of a system to a question, and what it cost. Of several samples of one prompt
    `prompt_tokens` counts the prompt once; `novel_tokens` counts every prefix once that any two
    prompts share under one policy (`tokens.novel`)."""

    status: str
    prompt_tokens: int
    completion_tokens: int
    novel_tokens: int

    @property
    def right(self) -> bool:
        """Whether the answer is correct."""
        return self.status == "correct"

    @property
    def tokens(self) -> int:
        """Read and written, as they stand."""
        return self.prompt_tokens + self.completion_tokens

    def cost(self, price: Price) -> int:
        """Tokens at a price; those read are the novel ones."""
        return self.completion_tokens + (self.novel_tokens if price == "read_and_written" else 0)


Outcomes = tuple[Outcome, ...]
"""Of one question: that of a vote alone, or that of each pass that was drawn, which count alike."""


def right(answered: Outcomes) -> float:
    """The share of a question's answers that are correct."""
    return sum(outcome.right for outcome in answered) / len(answered)


def cost(outcomes: Sequence[Outcomes], price: Price) -> float:
    """Mean tokens a question at a price, of one vote or one pass."""
    return _mean(outcomes, lambda outcome: outcome.cost(price))


def plain_cost(outcomes: Sequence[Outcomes]) -> float:
    """Mean tokens a question read and written as they stand."""
    return _mean(outcomes, lambda outcome: outcome.tokens)


def _mean(outcomes: Sequence[Outcomes], count: Callable[[Outcome], int]) -> float:
    """The mean over questions of a count's mean over a question's answers."""
    return sum(sum(map(count, answered)) / len(answered) for answered in outcomes) / len(outcomes)


def answers(system: System, passes: Passes) -> Outcomes:
    """What a single agent or a team made of one question: where it votes, the vote over its first
    `system.votes` passes, else each pass that was drawn.

    The answers are those of the last of its roles. Tokens are those of the nodes used; a prompt
    with several samples is counted once.
    """
    used = [nodes[: len(system.roles)] for nodes in passes]
    if not system.voted:
        return tuple(_outcome([nodes], "novel_in_pass") for nodes in used)
    return (_outcome(used[: system.votes], "novel"),)


def _outcome(used: Passes, novel: str) -> Outcome:
    rows = [row for nodes in used for row in nodes]
    prompts = {(row["role"], *row["path"][:-1]): row["prompt_tokens"] for row in rows}
    return Outcome(
        voted([nodes[-1] for nodes in used])["status"],
        sum(prompts.values()),
        sum(row["completion_tokens"] for row in rows),
        sum(row[novel] for row in rows),
    )


def debated(rows: Sequence[Row]) -> Outcomes:
    """Scores one question's debate, from its rows.

    The last round votes in agent order by the rule of `votes.majority`; where nobody votes, the
    first agent's status counts. All that was read and written is counted, the first round's prompt
    once: all agents were sampled from it.
    """
    last = max(row["path"][1] for row in rows)
    finals = sorted((row for row in rows if row["path"][1] == last), key=lambda row: row["path"])
    read = [row["prompt_tokens"] for row in rows if row["path"][0] == 0 or row["path"][1] > 0]
    written = sum(row["completion_tokens"] for row in rows)
    status, novel = voted(finals)["status"], sum(row["novel"] for row in rows)
    return (Outcome(status, sum(read), written, novel),)


def voted(finals: Sequence[Row], answer: str = "answer") -> Row:
    """The row that wins a majority vote by the column `answer`; the first where nobody votes."""
    return finals[majority([row[answer] for row in finals]) or 0]


def score(outcomes: Sequence[Outcomes], seed: int, resamples: int) -> Row:
    """Accuracy with its 95% interval, counts, and tokens summed over the questions.

    `correct` and the other counts are of all `answers`. Of a question with several passes the mean
    counts: the accuracy is that of one pass, its interval resamples questions, each with its passes
    (Wilson's interval where each question has one answer), and tokens are those of a mean pass.
    """
    drawn = [outcome for answered in outcomes for outcome in answered]
    count, n = Counter(outcome.status for outcome in drawn), len(outcomes)
    single = len(drawn) == n
    rate = share(count["correct"], n) if single else _clustered(outcomes, seed, resamples)
    return {
        **{"n": n, "answers": len(drawn), "correct": count["correct"]},
        **rate,
        **{status: count[status] for status in ("unparseable", "truncated", "unknown")},
        "tokens": {
            "prompt": _total(outcomes, lambda outcome: outcome.prompt_tokens),
            "completion": _total(outcomes, lambda outcome: outcome.completion_tokens),
        },
        "novel_tokens": _total(outcomes, lambda outcome: outcome.novel_tokens),
    }


def _total(outcomes: Sequence[Outcomes], count: Callable[[Outcome], int]) -> float:
    """A count summed over the questions, of one vote or of a mean pass."""
    total = sum(count(outcome) for answered in outcomes for outcome in answered)
    drawn = sum(map(len, outcomes))
    return total if drawn == len(outcomes) else round(_mean(outcomes, count) * len(outcomes), 3)


def _clustered(outcomes: Sequence[Outcomes], seed: int, resamples: int) -> Row:
    """The mean accuracy of a pass; the passes of a question are resampled together."""
    accuracy, low, high = stats.bootstrap([*map(right, outcomes)], seed, resamples)
    return {"accuracy": accuracy, "ci95": interval_of_mean(accuracy, low, high, len(outcomes), 0.0)}


def share(correct: int, n: int) -> Row:
    """An accuracy with its Wilson interval."""
    return {"accuracy": correct / n, "ci95": list(stats.wilson(correct, n))}


def difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, seed: int, resamples: int
) -> Row:
    """mean(a) - mean(b) over the same questions, with its paired interval."""
    mean, low, high = stats.paired_bootstrap(np.asarray(a), np.asarray(b), seed, resamples)
    return {
        "difference": mean,
        "ci95": interval_of_mean(mean, low, high, len(a), -1.0),
        "n": len(a),
    }


def interval_of_mean(mean: float, low: float, high: float, n: int, least: float) -> list[float]:
    """The bootstrap interval of a mean of n values from `least` to 1. Over values that are all
    alike it is a point, however few they are: then it is what the mean can be if up to the share of
    questions that none of n shows in one of 40 cases (Clopper and Pearson's bound) is at the ends.
    """
    if high - low > 1e-9:
        return [low, high]
    unseen = 1 - 0.025 ** (1 / n)
    return [mean - unseen * (mean - least), mean + unseen * (1 - mean)]


def compared(a: Sequence[Outcomes], b: Sequence[Outcomes], seed: int, resamples: int) -> Row:
    """`difference` of two systems' accuracies, with McNemar's p, which takes one verdict a
    question: None where passes of a question came out differently."""
    first, second = (np.array([*map(right, side)]) for side in (a, b))
    decided = np.isin([first, second], (0, 1)).all()
    p = stats.mcnemar(first == 1, second == 1) if decided else None
    return difference(first, second, seed, resamples) | {"p_mcnemar": p}


def paired(outcomes: Mapping[str, Sequence[Outcomes]], seed: int, resamples: int) -> list[Row]:
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


def verdicts(passes: Iterable[Passes], marks: Sequence[str]) -> dict[str, Row]:
    """By role after the first, what its verdicts say of the first role's answer: counts of answers
    accepted and rejected, right and wrong, and of texts without a verdict; and `auroc`, the area
    under the ROC curve of "accepts" as a sign of a right answer, where no verdict lies between the
    two. It is None where all answers are right, or all wrong. Roles that never give one are left
    out.
    """
    said: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for question in passes:
        for first, *others in question:
            for node in others:
                accepts = credit.verdict(node["completion"], marks)
                score = 0.5 if accepts is None else float(accepts)
                said[node["role"]].append((score, first["status"] == "correct"))
    names = {1.0: "accepted", 0.0: "rejected"}
    rows: dict[str, Row] = {}
    for role, pairs in said.items():
        if all(score == 0.5 for score, _ in pairs):
            continue
        scores, correct = map(np.array, zip(*pairs, strict=True))
        rows[role] = {
            f"{name}_{truth}": int(((scores == score) & (correct == (truth == "right"))).sum())
            for score, name in names.items()
            for truth in ("right", "wrong")
        } | {"without": int((scores == 0.5).sum()), "auroc": stats.auroc(scores, correct)}
    return rows


def read_outcomes(path: Path) -> dict[str, dict[str, Outcomes]]:
    """What `outcomes.parquet` holds: by system and question id its outcomes. Of earlier versions'
    files, which counted no novel tokens and one pass, all tokens read are novel."""
    outcomes: dict[str, dict[str, Outcomes]] = {}
    for row in shards.read_one(path, SCHEMA.names, optional=("sample", "novel_tokens")):
        read, written = row["prompt_tokens"], row["completion_tokens"]
        novel = row.get("novel_tokens")
        outcome = Outcome(row["status"], read, written, read if novel is None else novel)
        of_system = outcomes.setdefault(row["system"], {})
        of_system[row["question_id"]] = (*of_system.get(row["question_id"], ()), outcome)
    return outcomes
