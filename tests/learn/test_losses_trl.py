"""The losses against TRL's own trainers, on tiny random Llamas."""

from functools import partial

import jax.numpy as jnp
import pytest
from words import tiny_llama, tokenizer

from malt_jax.learn.losses import (
    Pairs,
    hinge,
    ipo,
    length_normalised,
    preference_loss,
    robust,
    rpo,
    sft_loss,
    sigmoid,
    token_logprobs,
)
from malt_jax.learn.unpaired import Unpaired, kl_reference, kto_loss

NEEDS_TRL = "parity with TRL's trainers needs trl and torch"
PROMPTS = ["w1 w2 ", "w7 ", "w11 w12 w13 "]
CHOSEN = ["w3 w4 w5", "w8", "w14 w1"]
REJECTED = ["w6", "w9 w10", "w2 w2 w2 w3"]
NAMES = {  # of metrics: ours, TRL's
    "margin": "rewards/margins",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
    "chosen_logp": "logps/chosen",
    "rejected_logp": "logps/rejected",
}


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def trl_settings(folder):
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 3,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
    }


def shifted_logprobs(model, batch):
    """token_logprobs of the torch model's logits, [B, T - 1], at positions 1 to T - 1."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return token_logprobs(jnp.asarray(logits[:, :-1].numpy()), batch["input_ids"][:, 1:].numpy())


def test_sft_loss_equals_trl(words, tmp_path):
    trl = pytest.importorskip("trl", reason=NEEDS_TRL)
    from datasets import Dataset

    rows = Dataset.from_dict({"prompt": PROMPTS, "completion": CHOSEN})
    trainer = trl.SFTTrainer(
        tiny_llama(0), trl.SFTConfig(**trl_settings(tmp_path)), None, rows, processing_class=words
    )
    batch = next(iter(trainer.get_train_dataloader()))
    mask = batch["labels"][:, 1:].numpy() != -100
    assert sorted(mask.sum(axis=1)) == [2, 3, 4]  # each completion and its end token

    logps = shifted_logprobs(tiny_llama(0), batch)
    want = float(trainer.compute_loss(trainer.model, dict(batch)).detach())
    assert float(sft_loss(logps, mask)[0]) == pytest.approx(want, rel=1e-5)
    want = float(trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=20).detach())
    assert float(sft_loss(logps, mask, denominator=20)[0]) == pytest.approx(want, rel=1e-5)


CHOSEN_TOKENS = [4, 2, 3]  # as TRL counts them, with the end token
VARIANTS = {
    "sigmoid": ({}, partial(sigmoid, beta=0.2)),
    "ipo": ({"loss_type": "ipo"}, partial(ipo, beta=0.2)),
    "hinge": ({"loss_type": "hinge"}, partial(hinge, beta=0.2)),
    "robust": (
        {"loss_type": "robust", "label_smoothing": 0.1},
        partial(robust, beta=0.2, noise=0.1),
    ),
    "length-normalised": (
        {"loss_type": "sigmoid_norm"},
        partial(length_normalised, loss=partial(sigmoid, beta=0.2)),
    ),
    "rpo": (
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
        partial(rpo, loss=partial(sigmoid, beta=0.2), alpha=0.7, tokens=sum(CHOSEN_TOKENS) / 3),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_preference_losses_equal_trl(words, tmp_path, name):
    trl = pytest.importorskip("trl", reason=NEEDS_TRL)
    from datasets import Dataset

    config, loss = VARIANTS[name]
    rows = Dataset.from_dict({"prompt": PROMPTS, "chosen": CHOSEN, "rejected": REJECTED})
    trainer = trl.DPOTrainer(
        tiny_llama(0),
        tiny_llama(1),
        trl.DPOConfig(beta=0.2, **config, **trl_settings(tmp_path)),
        train_dataset=rows,
        processing_class=words,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    want = float(trainer.compute_loss(trainer.model, dict(batch)).detach())
    logged = {key: values[0] for key, values in trainer._metrics["train"].items()}

    mask = batch["completion_mask"][:, 1:].numpy()
    assert sorted(mask[:3].sum(1)) == sorted(CHOSEN_TOKENS)
    policy, reference = (
        (shifted_logprobs(tiny_llama(seed), batch) * mask).sum(axis=1) for seed in (0, 1)
    )
    pairs = Pairs(*jnp.split(policy, 2), *jnp.split(reference, 2), *jnp.split(mask.sum(1), 2))
    got, metrics = preference_loss(pairs, loss, 0.2)
    assert float(got) == pytest.approx(want, rel=1e-5)
    for ours, theirs in {"accuracy": "rewards/accuracies", **NAMES}.items():
        assert float(metrics[ours]) == pytest.approx(logged[theirs], rel=1e-4, abs=1e-5), ours


@pytest.mark.parametrize(("seeds", "diverges"), [((1, 0), True), ((0, 1), False)])
def test_kto_loss_equals_trl(words, tmp_path, seeds, diverges):
    """Policy and reference one way round diverge on the mismatched completions, and the other way
    round their mean log-ratio is negative and counts as 0."""
    trl = pytest.importorskip("trl", reason=NEEDS_TRL)
    from datasets import Dataset

    rows = {"prompt": PROMPTS, "completion": CHOSEN, "label": [True, False, True]}
    trainer = trl.KTOTrainer(
        tiny_llama(seeds[0]),
        tiny_llama(seeds[1]),
        trl.KTOConfig(
            beta=0.05, desirable_weight=1.5, undesirable_weight=0.5, **trl_settings(tmp_path)
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=words,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    want = float(trainer.compute_loss(trainer.model, dict(batch)).detach())
    logged = {key: values[0] for key, values in trainer._metrics["train"].items()}

    def sums(seed, prefix):
        inputs = {key: batch[prefix + key] for key in ("input_ids", "attention_mask")}
        mask = batch[f"{prefix}completion_mask"][:, 1:].numpy()
        return (shifted_logprobs(tiny_llama(seed), inputs) * mask).sum(axis=1)

    kl = kl_reference(sums(seeds[0], "KL_"), sums(seeds[1], "KL_"))
    assert (float(kl) > 0) == diverges
    loss, metrics = kto_loss(
        Unpaired(sums(seeds[0], ""), sums(seeds[1], ""), jnp.asarray(batch["label"].numpy())),
        kl,
        0.05,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    )
    assert float(loss) == pytest.approx(want, rel=1e-5)
    for ours, theirs in {"kl": "kl", **NAMES}.items():
        assert float(metrics[ours]) == pytest.approx(logged[theirs], rel=1e-4, abs=1e-5), ours
