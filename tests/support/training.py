"""One role's training on a random model: its settings, its data, what it leaves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import small

from configs.base import get_config
from malt_jax.config import settings
from malt_jax.config.phase import PhaseSettings
from malt_jax.learn.phases import PHASES
from malt_jax.recipe import parse
from malt_jax.workdir import shards

MODEL = small.model(scale=4.0)


def recipe(train: tuple[str, ...] = ("sft", "dpo"), **phase) -> settings.Settings:
    config = get_config()
    config.model.path, config.data.task = "random", "arithmetic"
    config.chain = ("refiner",)
    config.roles.refiner.prompt = "{question}"
    config.lora.rank = 4
    parsed = parse(config.to_dict())
    # Not through the config, which allows DPO only after SFT.
    roles = {"refiner": replace(parsed.roles["refiner"], train=train)}
    every = {"batch": 4, "epochs": 2, "checkpoint_every": 2, "learning_rate": 1e-2}
    every |= {"held_out": 0.0} | phase
    phases = {name: replace(chosen, **every) for name, chosen in parsed.phases.items()}
    return replace(parsed, roles=roles, phases=phases)


def with_phase(parsed: settings.Settings, name: str, chosen: PhaseSettings) -> settings.Settings:
    """The settings with those of one phase replaced."""
    return replace(parsed, phases={**parsed.phases, name: chosen})


def write_data(workdir: Path, n: int = 10) -> None:
    rng = np.random.default_rng(0)
    encode = small.tokenizer().encode
    rows = {"sft": [], "dpo": [], "kto": []}
    for i in range(n):
        a, b = rng.integers(1, 50, 2)
        prompt, good, bad = f"{a}+{b}", f"={a + b}", f"={a - b}."
        ids = {name: [*encode(text), 0] for name, text in (("good", good), ("bad", bad))}
        common = {"question_id": str(i), "prompt": prompt, "prompt_token_ids": encode(prompt)}
        rows["sft"].append(
            common | {"completion": good, "value": 1.0, "completion_token_ids": ids["good"]}
        )
        rows["dpo"].append(
            common
            | {"chosen": good, "rejected": bad, "values": [1.0, 0.0]}
            | {"chosen_token_ids": ids["good"], "rejected_token_ids": ids["bad"]}
        )
        text, label = (bad, False) if i % 3 else (good, True)
        sample = {"completion": text, "completion_token_ids": [*encode(text), 0]}
        rows["kto"].append(common | sample | {"label": label, "value": float(label)})
    folder = workdir / "datasets" / "refiner"
    for name, some in rows.items():
        shards.write(folder / f"{name}.parquet", some, PHASES[name].schema)


def metrics(workdir: Path, phase: str) -> list[dict]:
    path = workdir / "checkpoints" / "refiner" / phase / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def exported(workdir: Path, phase: str = "") -> bytes:
    return (workdir / "export" / phase / "refiner" / "adapter_model.safetensors").read_bytes()
