"""A work directory as the earlier stages leave it, with every figure planted."""

import json
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from malt_jax.rollout import records
from malt_jax.workdir import shards

ATTACK = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
)
CHAIN = ("generator", "verifier", "refiner")
COMMAND = "python -m malt_jax.main --config=configs/quickstart.py --config.workdir=runs/quickstart"

PROMPT = "You are the {}.\nQuestion {{question}}"

SYSTEMS = {
    # name: (correct of 500, low, high, unparseable, truncated, prompt tokens, completion tokens)
    "sa": (306, 0.569, 0.654, 11, 3, 20_500, 14_000),
    "sa_mv": (329, 0.615, 0.699, 4, 1, 61_500, 42_000),
    "ma": (290, 0.536, 0.623, 19, 6, 110_000, 51_500),
    "ma_mv": (336, 0.630, 0.712, 5, 2, 330_000, 154_500),
    "malt": (365, 0.690, 0.768, 3, 1, 108_000, 49_000),
    "malt_mv": (391, 0.743, 0.816, 1, 0, 324_000, 147_000),
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def node(
    name: str, chain: tuple[str, ...], path: tuple[int, ...], right: bool, **changes: Any
) -> dict[str, Any]:
    """A row of the trees; a right node answers 18, a wrong one 19."""
    role = chain[len(path) - 1]
    return {
        "question_id": name,
        "question": f"Question {name}: what is 18 + {len(name)}?",
        "reference": "18",
        "role": role,
        "prompt": f"You are the {role}.\nQuestion {name} after {list(path[:-1])}",
        "path": list(path),
        "completion": f"Step one of {role} {list(path)} …\nFinal Answer: {19 - right}",
        "prompt_tokens": 40,
        "completion_tokens": 12,
        "logprob": -3.25,
        "finish_reason": "stop",
        "answer": str(19 - right),
        "status": "correct" if right else "wrong",
        "score": float(right),
    } | changes


Rule = Callable[[tuple[int, ...]], bool]


def even(path: tuple[int, ...]) -> bool:
    return sum(path) % 2 == 0


def tree(
    name: str, chain: tuple[str, ...] = CHAIN, n: int = 3, rule: Rule = even, **changes: Any
) -> list[dict[str, Any]]:
    """The full tree of `name` in which the nodes that `rule` names are right."""
    paths = [p for depth in range(len(chain)) for p in product(range(n), repeat=depth + 1)]
    return [node(name, chain, path, rule(path), **changes) for path in paths]


def write_trees(folder: Path, *trees: list[dict[str, Any]], shard: int = 0) -> None:
    rows = [row for rows in trees for row in rows]
    shards.write(folder / f"shard-{shard:05}.parquet", rows, records.SCHEMA)


def results(systems: dict[str, tuple[Any, ...]], paired: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "split": {"n": 500},
        "k": 3,
        "tie_rule": "the first answer given",
        "systems": {
            name: {
                "n": 500,
                "correct": correct,
                "accuracy": correct / 500,
                "ci95": [low, high],
                "unparseable": unparseable,
                "truncated": truncated,
                "tokens": {"prompt": read, "completion": generated},
            }
            for name, (
                correct,
                low,
                high,
                unparseable,
                truncated,
                read,
                generated,
            ) in systems.items()
        },
        "paired": paired,
        "flows": {"ma": _flow(93, 141, 777, 489), "malt": _flow(156, 27, 939, 378)},
        "verdicts": {
            "malt": {
                "verifier": {
                    **{"accepted_right": 300, "accepted_wrong": 20, "rejected_right": 40},
                    **{"rejected_wrong": 130, "without": 10, "auroc": 0.87},
                }
            }
        },
        "seconds": 71.4,
    }


def _flow(gained: int, lost: int, kept: int, never: int) -> dict[str, int]:
    return {
        "wrong_to_right": gained,
        "right_to_wrong": lost,
        "right_to_right": kept,
        "wrong_to_wrong": never,
    }


def paired(a: str, b: str, difference: float, low: float, high: float) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "difference": difference,
        "ci95": [low, high],
        "n": 500,
        "p_mcnemar": 3e-4,
    }


def metrics(phase: str, steps: int) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        wave = 0.06 * math.sin(2.3 * step) + 0.03 * math.sin(0.7 * step)
        row = {"step": step, "lr": 1e-3, "grad_norm": 1.0, "tokens": 512, "seconds": 0.1}
        row["loss"] = round(
            (0.69 if phase == "dpo" else 1.9) * math.exp(-step / 60) + 0.2 + wave, 4
        )
        if phase == "dpo":
            row["accuracy"] = min(
                1.0, max(0.0, round(0.5 + 0.45 * (1 - math.exp(-step / 40)) + wave, 4))
            )
            row["margin"] = round(step / 50 + wave, 4)
            row["chosen_logp"] = round(-40 - step / 30 + 9 * wave, 4)
            row["rejected_logp"] = round(-44 - step / 6 + 9 * wave, 4)
        rows.append(row)
        if step % 30 == 0:
            # The last third does worse on the held-out questions, so its adapters are not kept.
            over = max(0.0, step / steps - 0.7)
            held_out = {"loss": row["loss"] + 0.1 + over, "kl": 0.002 * step}
            rows.append({"step": step, "eval": True, **held_out, "best": not over})
    return rows


def write_run(folder: Path) -> None:
    """A whole run that MALT wins."""
    write_json(
        folder / "config.json",
        {
            "config": {
                "seed": 0,
                "model": {"path": "tiny-llama-2m", "dtype": "float32"},
                "data": {"task": "arithmetic", "train_questions": 600, "eval_questions": 500},
                "chain": list(CHAIN),
                "roles": {role: {"prompt": PROMPT.format(role), "branching": 3} for role in CHAIN},
                "credit": {
                    "threshold": 0.5,
                    "shuffle_rewards": False,
                    "max_positives_per_parent": 3,
                    "max_pairs_per_parent": 2,
                },
            },
            "command": COMMAND,
            "versions": {"jax": "0.10.2", "flax": "0.12.8"},
            "base_hash": "sha256:" + "0123456789abcdef" * 4,
            "started": "2025-03-01T10:20:30+00:00",
            "platform": "cpu",
        },
    )
    write_json(
        folder / "data.json",
        {
            "train": {
                "dropped": [["t7", "duplicate"]],
                "read": 7473,
                "kept": 600,
                "duplicate": 12,
                "overlap_ngram": 5,
                "beyond_limit": 6856,
            },
            "eval": {"read": 1319, "kept": 500, "duplicate": 0, "beyond_limit": 819},
        },
    )
    attacked = tree("q-attack", completion=ATTACK + "\u2028\u2029 & <b>naïve 数学 𝛑</b>")
    long = tree("q-long", completion="a long argument " * 400 + "x" * 3000)
    write_trees(folder / "trees", attacked, long)
    rules: list[Rule] = [lambda path: True, lambda path: False, even, lambda path: len(path) == 3]
    others = [
        tree(f"q{i:03}", rule=rules[i % 4], question=f"Ann has {i} apples and buys 18. How many?")
        for i in range(88)
    ]
    write_trees(folder / "trees", *others, shard=1)
    edges = [i / 10 for i in range(11)]
    write_json(
        folder / "datasets" / "yield.json",
        {
            role: {
                "nodes": nodes,
                "positives": nodes * 3 // 5,
                "sft_rows": nodes * 3 // 5 - 41,
                "parents": nodes // 3,
                "parents_with_contrast": nodes // 9,
                "pairs": nodes // 7,
                "value_histogram": {
                    "edges": edges,
                    "counts": [nodes // 5, *[nodes // 20] * 8, nodes * 2 // 5],
                },
                "dropped": {"identical_text": 37, "over_cap": 4},
            }
            for role, nodes in zip(CHAIN, (1800, 5400, 16200), strict=True)
        },
    )
    for role, phase, steps in (
        ("generator", "sft", 300),
        ("verifier", "sft", 120),
        ("verifier", "dpo", 90),
        ("refiner", "sft", 120),
        ("refiner", "dpo", 90),
    ):
        path = folder / "checkpoints" / role / phase / "metrics.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in metrics(phase, steps)))
    comparisons = [
        paired("ma", "sa", -0.032, -0.061, -0.003),
        paired("ma_mv", "sa_mv", 0.014, -0.012, 0.040),
        paired("malt", "ma", 0.150, 0.112, 0.188),
        paired("malt_mv", "sa", 0.170, 0.131, 0.209),
        paired("malt_mv", "ma_mv", 0.110, 0.078, 0.142),
        paired("malt_mv", "sa_mv", 0.124, 0.088, 0.160),
    ]
    write_json(folder / "eval" / "results.json", results(SYSTEMS, comparisons))
