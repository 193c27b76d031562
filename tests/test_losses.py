"""The losses against hand-computed literals, finite differences, and TRL's trainers themselves."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from malt_jax.losses import dpo_loss, sft_loss, token_logprobs

BOTH = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


@BOTH
def test_token_logprobs_literals(wrap):
    logits = jnp.log(jnp.array([[[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]])) + 7.0
    got = wrap(token_logprobs)(logits, jnp.array([[2, 0]]))
    np.testing.assert_allclose(got, [[math.log(5 / 8), math.log(1 / 4)]], rtol=1e-5)


def test_token_logprobs_of_extreme_logits_are_finite():
    logits = jnp.array([[1e4, -1e4], [1e4, -1e4]])
    np.testing.assert_array_equal(token_logprobs(logits, jnp.array([0, 1])), [0.0, -2e4])


@BOTH
def test_sft_literals(wrap):
    """(0.5 + 1 + 3) / 3: a mean over tokens; the mean over rows would be (0.75 + 3) / 2."""
    logps = jnp.array([[-9.0, -0.5, -1.0], [-9.0, -3.0, -9.0]])
    mask = jnp.array([[0, 1, 1], [0, 1, 0]])
    loss, metrics = wrap(sft_loss)(logps, mask)
    assert float(loss) == pytest.approx(1.5)
    assert float(metrics["nll"]) == pytest.approx(1.5)
    assert float(metrics["tokens"]) == 3


@BOTH
def test_dpo_literals(wrap):
    """Margins 0.2 * (2 + 3) = 1 and 0.2 * (-1 - 4) = -1, so losses log(1 + e^-1) and log(1 + e)."""
    loss, metrics = wrap(dpo_loss)(
        jnp.array([-10.0, -8.0]),
        jnp.array([-12.0, -5.0]),
        jnp.array([-12.0, -7.0]),
        jnp.array([-9.0, -9.0]),
    )
    assert float(loss) == pytest.approx((0.31326169 + 1.31326169) / 2, rel=1e-6)
    got = {name: float(value) for name, value in metrics.items()}
    assert got == pytest.approx(
        {
            "accuracy": 0.5,
            "margin": 0.0,
            "chosen_reward": (0.4 - 0.2) / 2,
            "rejected_reward": (-0.6 + 0.8) / 2,
            "pairs": 2,
        },
        abs=1e-6,
    )


def test_dpo_starts_at_log_two_when_the_policy_is_the_reference():
    chosen, rejected = jnp.array([-3.0, -70.0]), jnp.array([-50.0, -1.0])
    loss, metrics = dpo_loss(chosen, rejected, chosen, rejected)
    assert float(loss) == pytest.approx(math.log(2))
    assert float(metrics["accuracy"]) == 0  # a tie is no win, as in TRL


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    targets, mask = jnp.array([[0, 1, 2], [3, 4, 0]]), jnp.array([[0, 1, 1], [1, 1, 0]])
    check_grads(
        lambda z: sft_loss(token_logprobs(z, targets), mask)[0], (logits,), 1, ["rev"], eps=1e-2
    )
    four = tuple(jnp.asarray(rng.normal(size=4) * 3, jnp.float32) for _ in range(4))
    check_grads(lambda *logps: dpo_loss(*logps)[0], four, 1, ["rev"], eps=1e-2)


@BOTH
def test_dpo_gradient_literal(wrap):
    """dL/d chosen = -beta * sigmoid(-margin) / B; at margin 0 and B = 2 that is -0.2 / 4."""
    zeros = jnp.zeros(2)
    chosen, rejected = wrap(jax.grad(lambda c, r: dpo_loss(c, r, zeros, zeros)[0], (0, 1)))(
        zeros, zeros
    )
    np.testing.assert_allclose(chosen, [-0.05, -0.05])
    np.testing.assert_allclose(rejected, [0.05, 0.05])


@pytest.mark.parametrize(("ratio", "want"), [(1e4, 0.0), (-1e4, 0.2 * 2e4)])
def test_dpo_of_extreme_log_ratios(ratio, want):
    def loss(chosen, rejected):
        return dpo_loss(chosen, rejected, jnp.zeros(1), jnp.zeros(1))[0]

    value, (chosen, _) = jax.value_and_grad(loss, (0, 1))(jnp.array([ratio]), jnp.array([-ratio]))
    assert float(value) == pytest.approx(want)
    np.testing.assert_allclose(chosen, [0.0 if ratio > 0 else -0.2])


@BOTH
def test_rows_of_padding_count_for_nothing(wrap):
    """Even where they hold NaN and infinities: neither loss, metrics nor gradients change."""
    rng = np.random.default_rng(1)
    rows = [jnp.asarray(rng.normal(size=2), jnp.float32) for _ in range(4)]
    bad = [jnp.concatenate([r, jnp.array([jnp.nan, jnp.inf, -1e30])]) for r in rows]
    weights = jnp.array([1, 1, 0, 0, 0])

    def dpo(logps, weights=None):
        return dpo_loss(*logps, weights=weights)

    want, want_grad = wrap(jax.value_and_grad(dpo, has_aux=True))(rows)
    got, got_grad = wrap(jax.value_and_grad(dpo, has_aux=True))(bad, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
    for a, b in zip(got_grad, want_grad, strict=True):
        np.testing.assert_allclose(a, jnp.concatenate([b, jnp.zeros(3)]), rtol=1e-6)

    logps = jnp.array([[-1.0, -jnp.inf], [jnp.nan, -2.0], [jnp.nan, jnp.inf]])
    mask = jnp.array([[1, 0], [0, 1], [1, 1]])
    sft = wrap(jax.value_and_grad(sft_loss, has_aux=True))
    (loss, metrics), grad = sft(logps, mask, weights=jnp.array([1, 1, 0]))
    assert (float(loss), float(metrics["tokens"])) == (1.5, 2)
    np.testing.assert_allclose(grad, [[-0.5, 0.0], [0.0, -0.5], [0.0, 0.0]])


def test_a_batch_of_nothing_is_zero():
    ones = jnp.ones(2)
    assert float(sft_loss(ones[None], jnp.zeros((1, 2)))[0]) == 0
    assert float(dpo_loss(ones, ones, ones, ones, weights=jnp.zeros(2))[0]) == 0


def test_micro_batches_with_the_whole_denominator_average_to_the_whole_batch():
    """Rows of 1 to 4 completion tokens; averaging the micro-batches' own means is not the same."""
    rng = np.random.default_rng(2)
    logps = jnp.asarray(rng.normal(size=(4, 4)), jnp.float32)
    mask = jnp.tril(jnp.ones((4, 4), bool))
    whole = float(sft_loss(logps, mask)[0])
    rows = list(zip(logps[:, None], mask[:, None], strict=True))
    parts = [sft_loss(row, m, denominator=10 / 4)[0] for row, m in rows]
    assert float(np.mean(parts)) == pytest.approx(whole, rel=1e-6)
    own = [sft_loss(row, m)[0] for row, m in rows]
    assert float(np.mean(own)) != pytest.approx(whole, rel=1e-2)

    four = [jnp.asarray(rng.normal(size=4), jnp.float32) for _ in range(4)]
    weights = jnp.array([1, 1, 1, 0])
    halves = [
        dpo_loss(*(x[cut] for x in four), weights=weights[cut], denominator=3 / 2)[0]
        for cut in (slice(0, 2), slice(2, 4))
    ]
    want = float(dpo_loss(*four, weights=weights)[0])
    assert float(np.mean(halves)) == pytest.approx(want, rel=1e-6)


NEEDS_TRL = "parity with TRL's trainers needs trl and torch"
PROMPTS = ["w1 w2 ", "w7 ", "w11 w12 w13 "]
CHOSEN = ["w3 w4 w5", "w8", "w14 w1"]
REJECTED = ["w6", "w9 w10", "w2 w2 w2 w3"]


@pytest.fixture(scope="module")
def words():
    """A tokenizer of one id a word, made in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<eos>", *(f"w{i}" for i in range(30))]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>"
    )


def tiny_llama(seed):
    """A random Llama with logits far from uniform, so that losses differ clearly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.6,
    )
    return LlamaForCausalLM(config)


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


@pytest.mark.parametrize("beta", [0.2, 0.05])
def test_dpo_loss_equals_trl(words, tmp_path, beta):
    trl = pytest.importorskip("trl", reason=NEEDS_TRL)
    from datasets import Dataset

    rows = Dataset.from_dict({"prompt": PROMPTS, "chosen": CHOSEN, "rejected": REJECTED})
    trainer = trl.DPOTrainer(
        tiny_llama(0),
        tiny_llama(1),
        trl.DPOConfig(beta=beta, **trl_settings(tmp_path)),
        train_dataset=rows,
        processing_class=words,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    want = float(trainer.compute_loss(trainer.model, dict(batch)).detach())
    logged = {name: values[0] for name, values in trainer._metrics["train"].items()}

    mask = batch["completion_mask"][:, 1:].numpy()
    policy, reference = (
        (shifted_logprobs(tiny_llama(seed), batch) * mask).sum(axis=1) for seed in (0, 1)
    )
    loss, metrics = dpo_loss(policy[:3], policy[3:], reference[:3], reference[3:], beta)
    assert float(loss) == pytest.approx(want, rel=1e-5)
    for ours, theirs in {
        "accuracy": "rewards/accuracies",
        "margin": "rewards/margins",
        "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected",
    }.items():
        assert float(metrics[ours]) == pytest.approx(logged[theirs], rel=1e-4, abs=1e-5)
