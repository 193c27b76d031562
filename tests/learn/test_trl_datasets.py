"""The written data sets in TRL's trainers, as they are: no column renamed, added or removed."""

import math
from pathlib import Path
from typing import Any

import pytest
import small

from malt_jax.config.credit import CreditSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.learn import datasets
from malt_jax.rollout import records
from malt_jax.workdir import shards

trl = pytest.importorskip("trl", reason="what TRL makes of the files needs trl and torch")

STEPS = 2


class Chain:
    chain = ("refiner",)
    credit = CreditSettings(0.5, False, 3, 2)
    rounds = RoundsSettings()
    seed = 0


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A small model, and the data sets of four sums answered right twice and wrong twice."""
    folder = tmp_path_factory.mktemp("run")
    small.save(folder / "model")
    tokenizer = small.tokenizer()
    rows = []
    for a in range(4):
        prompt = tokenizer.prompt("Sum {sum}", {"sum": f"{a}+1"})
        answers = (f"{a}+1={a + 1}", f"It is {a + 1}.", f"{a}+1={a}", f"It is {a}, no!")
        for i, text in enumerate(answers):
            completion = [*tokenizer.encode(text), tokenizer.end_id]
            rows.append(
                dict.fromkeys(records.SCHEMA.names)
                | {"question_id": str(a), "role": "refiner", "node": i, "parent": -1, "path": [i]}
                | {"prompt": tokenizer.decode(prompt, control=True), "completion": text}
                | {"status": "correct" if i < 2 else "wrong", "score": float(i < 2)}
                | {"prompt_token_ids": prompt, "completion_token_ids": completion}
            )
    shards.write(folder / "trees" / "shard-00000.parquet", rows, records.SCHEMA)
    datasets.run(folder, Chain())
    return folder


def train(workdir: Path, phase: str, trainer: type, config: type) -> tuple[Any, Any, list[float]]:
    """The data as loaded, as the trainer has it after its preparation, and the losses of its
    steps."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = workdir / "datasets" / "refiner" / f"{phase}.parquet"
    loaded = load_dataset("parquet", data_files=str(file), cache_dir=str(workdir / "cache"))
    model = AutoModelForCausalLM.from_pretrained(workdir / "model")
    running = trainer(
        model,
        args=config(
            output_dir=str(workdir / "trl"),
            per_device_train_batch_size=2,
            max_steps=STEPS,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=loaded["train"],
        processing_class=AutoTokenizer.from_pretrained(workdir / "model"),
    )
    running.train()
    losses = [line["loss"] for line in running.state.log_history if "loss" in line]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    return loaded["train"], running.train_dataset, losses


def joined(rows: Any, *columns: str) -> list[list[int]]:
    return [[i for column in columns for i in row[column]] for row in rows]


def test_sft_file(workdir):
    loaded, prepared, _ = train(workdir, "sft", trl.SFTTrainer, trl.SFTConfig)
    assert len(prepared) == len(loaded) == 8
    assert list(prepared["input_ids"]) == joined(loaded, "prompt_token_ids", "completion_token_ids")
    learnt = [[i for i in labels if i != -100] for labels in prepared["labels"]]
    assert learnt == joined(loaded, "completion_token_ids")


def test_dpo_file(workdir):
    loaded, prepared, losses = train(workdir, "dpo", trl.DPOTrainer, trl.DPOConfig)
    assert len(prepared) == len(loaded) == 8
    assert list(prepared["prompt_ids"]) == joined(loaded, "prompt_token_ids")
    for column in ("chosen", "rejected"):
        assert list(prepared[f"{column}_ids"]) == joined(loaded, f"{column}_token_ids")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)


def test_kto_file(workdir):
    loaded, prepared, losses = train(workdir, "kto", trl.KTOTrainer, trl.KTOConfig)
    assert len(prepared) == len(loaded) == 16
    assert list(prepared["label"]) == list(loaded["label"])
    assert list(prepared["prompt_ids"]) == joined(loaded, "prompt_token_ids")
    assert list(prepared["completion_ids"]) == joined(loaded, "completion_token_ids")
    assert losses[0] == pytest.approx(0.5, abs=1e-4)
    # What TRL measures the distance to the reference on comes from another question's trees.
    question = {tuple(row["completion_token_ids"]): row["question_id"] for row in loaded}
    for row in prepared:
        assert question[tuple(row["KL_completion_ids"])] != row["question_id"]
