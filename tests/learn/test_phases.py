"""Phases as values: the examples that their docstrings work out, and one from outside the
package."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import toy_phase
from plans import CONFIG, LORA
from recipes import change, good
from training import MODEL, exported, metrics

from malt_jax.config.credit import CreditSettings
from malt_jax.config.settings import Settings
from malt_jax.learn import datasets, losses, unpaired
from malt_jax.learn.phases import PHASES
from malt_jax.learn.phases.phase import Family, Forecast
from malt_jax.plan import programs, workload
from malt_jax.plan.programs import Packed
from malt_jax.recipe import base, parse
from malt_jax.rollout import records
from malt_jax.runtime import mesh
from malt_jax.stages import train
from malt_jax.workdir import shards

CREDIT = CreditSettings(0.5, False, 3, 2)


def family(*values: float) -> Family:
    rows = [
        {"completion": "abcdefg"[i], "value": value, "label": value > 0.5, "prompt": "p"}
        | {"question_id": "q", "prompt_token_ids": [1], "completion_token_ids": [2 + i]}
        | {"behaviour_logprobs": [-1.0]}
        for i, value in enumerate(values)
    ]
    return Family(rows, rows)


def test_rows_are_those_of_the_docstrings():
    siblings = family(1, 2 / 3, 1 / 3, 0)
    assert [row["value"] for row in PHASES["sft"].rows(siblings, CREDIT).rows] == [1, 2 / 3]
    capped = PHASES["sft"].rows(siblings, replace(CREDIT, max_positives_per_parent=1))
    assert [row["value"] for row in capped.rows] == [1]
    assert capped.dropped == {"positives over the cap": 1}
    pairs = PHASES["dpo"].rows(siblings, CREDIT)
    assert [row["values"] for row in pairs.rows] == [[1, 0], [2 / 3, 0]]
    assert pairs.dropped == {"pairs over the cap": 2}
    labels = [row["label"] for row in PHASES["kto"].rows(siblings, CREDIT).rows]
    assert labels == [True, True, False, False]


def test_losses_are_those_of_the_docstrings():
    logps = jnp.array([[-1.0, -1.0, -1.0], [-5.0, -9.0, -9.0]])
    loss, _ = losses.sft_loss(logps, jnp.array([[1, 1, 1], [1, 0, 0]]))
    assert float(loss) == 2
    pair = losses.Pairs(*(jnp.array([float(x)]) for x in (-10, -9, -12, -8, 1, 1)))
    assert float(losses.sigmoid(pair, beta=0.2)[0]) == pytest.approx(0.4375, abs=1e-4)
    ratios, labels = jnp.array([2.0, -2.0]), jnp.array([True, False])
    loss, _ = unpaired.kto_loss(unpaired.Unpaired(ratios, jnp.zeros(2), labels), 0.5, 0.1)
    assert float(loss) == pytest.approx(0.4502, abs=1e-4)


def test_what_a_plan_expects():
    """100 parents of 3 nodes, half of the nodes positive, 3 in 10 parents with a contrast."""
    forecast = Forecast(300, 100, positive=0.5, contrast=0.3)
    expected = {name: phase.expected(forecast, CREDIT) for name, phase in PHASES.items()}
    assert expected == {"sft": 150, "dpo": 60, "kto": 300, "rl": 90}
    assert PHASES["sft"].expected(forecast, replace(CREDIT, max_positives_per_parent=1)) == 100


@pytest.mark.parametrize("train", [("dpo",), ("dpo", "sft")])
def test_a_phase_that_needs_another_before_it(train):
    with pytest.raises(ValueError, match=r"config.roles.refiner.train: dpo needs the sft or kto"):
        parse(change(good(), "roles.refiner.train", train))


@pytest.fixture
def toy(monkeypatch) -> Settings:
    """The phase registered, and the settings of a run with it."""
    monkeypatch.setitem(PHASES, "toy", toy_phase.PHASE)
    config = base().to_dict()
    config["toy"] |= {"learning_rate": 2e-3, "batch": 48, "epochs": 16, "held_out": 0.2}
    config["toy"]["eval_every"] = 4  # of steps that hold all examples each
    for key, value in {
        "model.path": "random",
        "data.task": "arithmetic",
        "data.train_questions": 12,
        "data.eval_questions": 2,
        "chain": ("refiner",),
        "roles.refiner.prompt": "{question}",
        "roles.refiner.train": ("toy",),
        "lora.rank": 4,
    }.items():
        change(config, key, value)
    return parse(config)


def write_trees(workdir: Path) -> None:
    """Three samples of a question, one right, with the log-probabilities that the base gives
    them."""
    encode = small.tokenizer().encode
    rows = []
    for i in range(12):
        prompt = encode(f"{i}+{2 * i}")
        for j, text in enumerate((f"={3 * i}", f"={i}.", f"-{i + 1}")):
            tokens = [*encode(text), 0]
            padded = np.full(32, -1)
            padded[: len(prompt) + len(tokens)] = [*prompt, *tokens]
            logps = small.full_pass(MODEL.config, MODEL.params, jnp.array(padded), None)
            places = np.arange(len(prompt) - 1, len(prompt) + len(tokens) - 1)
            rows.append(
                {"question_id": f"q{i}", "role": "refiner", "node": j, "parent": -1, "path": [j]}
                | {"prompt": "", "completion": text, "score": float(j == 0), "status": "correct"}
                | {"behaviour_logprobs": np.asarray(logps)[places, tokens].tolist()}
                | {"prompt_token_ids": prompt, "completion_token_ids": tokens}
            )
    shards.write(workdir / "trees" / "shard-00000.parquet", rows, records.SCHEMA)


def test_a_phase_from_outside_is_harvested_trained_and_exported(toy, tmp_path):
    """Ratios to the policy that sampled are 1 at first; then right answers gain on wrong ones."""
    write_trees(tmp_path)
    counts = datasets.run(tmp_path, toy)
    assert counts["refiner"]["toy_rows"] == 36
    stored = shards.read_one(tmp_path / "datasets" / "refiner" / "toy.parquet")
    assert [row["advantage"] for row in stored[:3]] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    train.run(tmp_path, toy, MODEL, mesh.make())
    rows = metrics(tmp_path, "toy")
    steps = [row for row in rows if not row.get("eval")]
    assert steps[0]["drift"] < 1e-5 < steps[-1]["drift"]
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.02
    assert rows[0]["eval"]
    assert exported(tmp_path)


def test_a_phase_from_outside_is_planned(toy):
    assert workload.work(toy).steps == {"toy": 16}
    chosen = replace(toy.phases["toy"], batch=2)
    build = programs.train(
        jnp.float32, LORA, mesh.make(), toy_phase.PHASE, chosen, Packed(64, 32, 2, 1), toy.sample
    )
    taken = jax.tree.leaves(build(CONFIG).in_avals)
    assert [1, 1, 32] in [list(array.shape) for array in taken if array.dtype == jnp.float32]


def test_siblings_advantages_are_those_of_the_docstring():
    rows = toy_phase.rows(family(1, 1 / 3, 0), CREDIT).rows
    assert [row["advantage"] for row in rows] == pytest.approx([5 / 9, -1 / 9, -4 / 9])
