"""Stage 4: single agent, untrained team and trained team on held-out questions, alone and by
majority vote.

Each question gets k passes of a team: k samples of the first role, each carried through the
chain. The single agent is the first role of the untrained team, so `sa` and `ma` share their
samples, and both teams draw with the same random numbers.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from absl import logging

from malt_jax import rundir, shards, stats, tree
from malt_jax.models.lora import Adapter
from malt_jax.sampler import Work
from malt_jax.settings import SYSTEMS, Settings
from malt_jax.types import Question

Row = dict[str, Any]
Passes = list[list[Row]]
"""One question's k passes: `passes[sample][depth]` is a node's row."""

TIE_RULE = (
    "the answer with the most votes; among equals the one that appeared first; "
    "an empty answer is no vote"
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


def run(
    workdir: Path,
    settings: Settings,
    team: tree.Team,
    adapters: Mapping[str, Adapter | None],
    questions: Sequence[Question],
) -> Row:
    """Samples what is missing, scores every system and writes `eval/results.json` and
    `eval/predictions.parquet`.

    `team` is the untrained one; `adapters` make it the trained one. Returns the results.
    """
    started, directory = time.perf_counter(), workdir / "eval"
    systems = [name for name in SYSTEMS if name in settings.eval.systems]
    whole_chain = any(name.startswith("ma") and not name.startswith("malt") for name in systems)
    base = replace(team, roles=team.roles if whole_chain else team.roles[:1])
    teams = {"base": base, "malt": replace(team, adapters=adapters)}
    if not any(name.startswith("malt") for name in systems):
        del teams["malt"]
    passes: dict[str, dict[str, Passes]] = {}
    for name, one in teams.items():
        _sample(directory / name, settings, one, questions, name)
        passes[name] = _passes(directory / name, questions)
    outcomes = {
        name: [
            outcome(name, passes["malt" if name.startswith("malt") else "base"][q.id])
            for q in questions
        ]
        for name in systems
    }
    results: Row = {
        "split": {"n": len(questions)},
        "k": settings.eval.votes,
        "tie_rule": TIE_RULE,
        "systems": {name: _score(found) for name, found in outcomes.items()},
        "paired": _paired(outcomes, settings),
        "flows": {
            "malt" if name == "malt" else "ma": flows(list(found.values()))
            for name, found in passes.items()
            if len(teams[name].roles) > 1
        },
        "seconds": round(time.perf_counter() - started, 1),
    }
    shards.write(directory / "predictions.parquet", _predictions(passes), PREDICTIONS)
    rundir.write_json(directory / "results.json", results)
    for name, score in results["systems"].items():
        low, high = score["ci95"]
        logging.info(
            "%-8s %.1f%% [%.1f, %.1f]", name, 100 * score["accuracy"], 100 * low, 100 * high
        )
    return results


def _sample(
    directory: Path, settings: Settings, team: tree.Team, questions: Sequence[Question], name: str
) -> None:
    votes = settings.eval.votes
    roles = tuple(replace(r, branching=votes if i == 0 else 1) for i, r in enumerate(team.roles))
    passing = replace(team, roles=roles, stream="evaluate")
    credit = replace(settings.credit, shuffle_rewards=False)

    # Less branching than a training tree: more questions make the same number of rows.
    work, per_shard = Work(), settings.sample.questions_per_shard * 4

    def grow_trees(
        pending: Sequence[Question], progress: Callable[[int], Any]
    ) -> Iterator[list[Row]]:
        return tree.grow(passing, pending, credit, per_shard, progress, work)

    shards.grow(
        directory,
        questions,
        grow_trees,
        nodes_per_question=votes * len(roles),
        title=f"evaluate {name}",
    )
    logging.info("evaluate %s: %s", name, work.summary())


def _passes(directory: Path, questions: Sequence[Question]) -> dict[str, Passes]:
    wanted = {question.id for question in questions}
    passes: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in shards.read(directory):
        if row["question_id"] in wanted:
            passes[row["question_id"]][row["path"][0]].append(row)
    # A shard holds the chain depth by depth, so each pass is in order.
    return {qid: [nodes for _, nodes in sorted(found.items())] for qid, found in passes.items()}


def outcome(system: str, passes: Passes) -> Outcome:
    """Scores one system on one question.

    "sa" and "sa_mv" look at the first role only, the others at the last; "_mv" votes over all
    passes, else the first pass counts. Tokens are those of the nodes used; a prompt with several
    samples is counted once.
    """
    depth = 1 if system.startswith("sa") else len(passes[0])
    used = [nodes[:depth] for nodes in (passes if system.endswith("_mv") else passes[:1])]
    finals = [nodes[-1] for nodes in used]
    winner = stats.majority([row["answer"] for row in finals])
    prompts = {
        (row["role"], *row["path"][:-1]): row["prompt_tokens"] for nodes in used for row in nodes
    }
    return Outcome(
        finals[0 if winner is None else winner]["status"],
        sum(prompts.values()),
        sum(row["completion_tokens"] for nodes in used for row in nodes),
    )


def _score(outcomes: Sequence[Outcome]) -> Row:
    count = Counter(found.status for found in outcomes)
    return {
        "n": len(outcomes),
        "correct": count["correct"],
        "accuracy": count["correct"] / len(outcomes),
        "ci95": list(stats.wilson(count["correct"], len(outcomes))),
        "unparseable": count["unparseable"],
        "truncated": count["truncated"],
        "tokens": {
            "prompt": sum(found.prompt_tokens for found in outcomes),
            "completion": sum(found.completion_tokens for found in outcomes),
        },
    }


def _paired(outcomes: Mapping[str, Sequence[Outcome]], settings: Settings) -> list[Row]:
    correct = {
        name: np.array([o.status == "correct" for o in found]) for name, found in outcomes.items()
    }
    rows = []
    for earlier, later in combinations(correct, 2):
        a, b = correct[later], correct[earlier]
        difference, low, high = stats.paired_bootstrap(a, b, settings.seed, settings.eval.resamples)
        rows.append(
            {
                "a": later,
                "b": earlier,
                "difference": difference,
                "ci95": [low, high],
                "n": len(a),
                "p_mcnemar": stats.mcnemar(a, b),
            }
        )
    return rows


def flows(passes: Sequence[Passes]) -> dict[str, int]:
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


def _predictions(passes: Mapping[str, Mapping[str, Passes]]) -> list[Row]:
    return [
        {
            **{name: row[name] for name in PREDICTIONS.names if name in row},
            "system": "malt" if name == "malt" else "ma",
            "sample": row["path"][0],
        }
        for name, questions in passes.items()
        for question in questions.values()
        for nodes in question
        for row in nodes
    ]
