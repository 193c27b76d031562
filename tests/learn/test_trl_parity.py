"""Twenty optimiser steps beside TRL's trainers with a PEFT adapter: the loss of every step and the
adapter at the end."""

from functools import lru_cache

import jax
import numpy as np
import pytest
import small

from configs.base import get_config
from malt_jax.learn import optim, steps
from malt_jax.learn.logprobs import sequence_logprobs
from malt_jax.learn.packing import arrange, examples, take
from malt_jax.learn.phases import PHASES
from malt_jax.learn.phases.phase import StepData
from malt_jax.models import lora
from malt_jax.models.peft import load_adapter, save_adapter
from malt_jax.recipe import parse
from malt_jax.runtime import mesh

trl = pytest.importorskip("trl", reason="parity with TRL's trainers needs trl and torch")
STEPS, ROWS, PEAK, BETA = 20, 12, 3e-3, 0.2
SHAPE = {"rank": 4, "alpha": 8.0, "targets": lora.TARGETS}
RECIPE = {"warmup": 0.2, "weight_decay": 0.1, "b1": 0.9, "b2": 0.98, "clip_norm": 1.0}
MODEL = small.model(scale=4.0)


@lru_cache
def start() -> lora.Adapter:
    """B is drawn as well, or the first step's gradient of A would be nothing to compare."""
    fresh = lora.init(MODEL.config, jax.random.key(1), **SHAPE)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: x + np.float32(rng.normal(0, 0.05, x.shape)), fresh)


def texts() -> dict[str, list[str]]:
    """Sums with right and wrong results, of different lengths."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 900, (ROWS, 2)).tolist()
    return {
        "prompt": [f"{a}+{b} is" for a, b in pairs],
        "chosen": [f" {a + b}" + "." * (a % 5) for a, b in pairs],
        "rejected": [f" {a - b}, or so" for a, b in pairs],
    }


def theirs(folder, kind: str, batch: int, accumulate: int):
    """Runs TRL's trainer: its data as token ids, its losses and its adapter."""
    import datasets
    import peft
    import torch
    import transformers

    save_adapter(start(), MODEL.config, folder / "start", base=str(folder / "base"), **SHAPE)
    base = transformers.AutoModelForCausalLM.from_pretrained(small.save(folder / "base"))
    model = peft.PeftModel.from_pretrained(base, folder / "start", is_trainable=True)
    columns = texts()
    if kind == "sft":
        columns = {"prompt": columns["prompt"], "completion": columns["chosen"]}
    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[kind](
        output_dir=str(folder / "out"),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        max_steps=STEPS,
        max_grad_norm=RECIPE["clip_norm"],
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **({"beta": BETA} if kind == "dpo" else {"completion_only_loss": True}),
    )
    weights = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(
        weights, PEAK, (RECIPE["b1"], RECIPE["b2"]), 1e-8, RECIPE["weight_decay"]
    )
    rate = optim.schedule(PEAK, STEPS, RECIPE["warmup"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda i: float(rate(i)) / PEAK)
    trainer = {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer}[kind](
        model,
        args=config,
        train_dataset=datasets.Dataset.from_dict(columns),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "base"),
        optimizers=(adam, scheduler),
    )
    trainer._get_train_sampler = lambda dataset=None: torch.utils.data.SequentialSampler(
        dataset if dataset is not None else trainer.train_dataset
    )
    rows = [row for batch in trainer.get_train_dataloader() for row in sequences(batch, kind)]
    trainer.train()
    trainer.model.save_pretrained(folder / "end", selected_adapters=["default"])
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return rows, logged, load_adapter(folder / "end", MODEL.config)


def sequences(batch, kind: str):
    """Prompt and completions of a TRL batch's examples. DPO has the chosen ones, then the
    rejected."""
    ids, seen = batch["input_ids"].numpy(), batch["attention_mask"].numpy() > 0
    said = (
        batch["labels"].numpy() != -100 if kind == "sft" else batch["completion_mask"].numpy() > 0
    )
    prompts = [row[mask & ~out].tolist() for row, mask, out in zip(ids, seen, said, strict=True)]
    completions = [row[out].tolist() for row, out in zip(ids, said, strict=True)]
    if kind == "sft":
        return [(p, [c]) for p, c in zip(prompts, completions, strict=True)]
    half = len(ids) // 2
    assert prompts[:half] == prompts[half:]
    return list(
        zip(prompts, zip(completions[:half], completions[half:], strict=True), strict=False)
    )


def ours(rows, kind: str, batch: int, accumulate: int):
    """The same steps: step i has the examples that TRL's sequential sampler gives it."""
    prompts, completions = zip(*rows, strict=True)
    data = examples(prompts, completions, 512, [str(i) for i in range(len(rows))])
    step_rows = batch * accumulate
    order = arrange(
        data, np.arange(STEPS * step_rows).reshape(STEPS, -1) % len(rows), accumulate, rows=1
    )
    config = get_config()
    config.dpo.beta, config.data.task, config.model.path = BETA, "gsm8k", "random"
    phase, chosen = PHASES[kind], parse(config.to_dict()).phases[kind]
    devices = mesh.make(data=1)
    reference = np.zeros((len(rows), 0 if kind == "sft" else 2), np.float32)
    if kind == "dpo":
        once = arrange(data, np.arange(len(rows))[None], 1, rows=1)
        sums = sequence_logprobs(MODEL.config, MODEL.params, start(), take(data, once, 0, 3))
        reference[once.order.reshape(-1)] = np.asarray(sums).reshape(-1, 2)
    tx = optim.adamw(PEAK, STEPS, **RECIPE)
    state = steps.init(tx, jax.tree.map(jax.numpy.array, start()), devices)
    loss = phase.loss(chosen)
    step = steps.training(MODEL.config, tx, loss, state, remat="keep_products")
    values = []
    for i in range(STEPS):
        batches = take(data, order, i, pad_id=3)
        arrays = {"reference": reference}
        extra = phase.extra(StepData(order.order[i], data, arrays, batches))
        state, metrics = step(MODEL.params, state, *steps.place(devices, batches, extra))
        values.append(float(metrics["loss"]))
    return values, state["adapter"]


# In the suite the steps of several micro-batches; those of one are slow.
@pytest.mark.parametrize(
    ("kind", "batch", "accumulate"),
    [
        ("sft", 2, 3),
        ("dpo", 2, 2),
        pytest.param("sft", 4, 1, marks=pytest.mark.slow),
        pytest.param("dpo", 4, 1, marks=pytest.mark.slow),
    ],
)
def test_twenty_steps_equal_trl_and_peft(tmp_path, kind, batch, accumulate):
    rows, logged, expected = theirs(tmp_path, kind, batch, accumulate)
    values, adapter = ours(rows, kind, batch, accumulate)
    assert len(logged) == STEPS
    assert logged[-1] < 0.8 * logged[0]
    np.testing.assert_allclose(values, logged, rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), adapter, start())
    assert min(jax.tree.leaves(moved)) > 1e-2
    for layer, targets in expected.layers.items():
        for target, pair in targets.items():
            for letter, tensor in pair.items():
                got = adapter.layers[layer][target][letter]
                np.testing.assert_allclose(got, tensor, atol=2e-4, err_msg=f"{layer} {target}")
