"""The policy losses against figures worked out by hand, TRL's GRPO variants on the same numbers,
and the exact policy gradient of a softmax over two tokens."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malt_jax.learn import policy_losses as losses
from malt_jax.learn.policy_losses import clipped, k1, k2, k3, reinforce, sequence_log_ratio

CLIP = {"low": 0.2, "high": 0.28}


def test_a_ratio_beyond_the_clip_gains_nothing():
    ratio = jnp.array([1.5, 1.5, 0.5, 0.5, 1.1, 6.0])
    worth = jnp.array([1.0, -1.0, 1.0, -1.0, 2.0, -1.0])
    want = [1.28, -1.5, 0.5, -0.8, 2.2, -6.0]
    np.testing.assert_allclose(clipped(jnp.log(ratio), worth, **CLIP), want, rtol=1e-6)
    want[-1] = -2.0
    np.testing.assert_allclose(clipped(jnp.log(ratio), worth, **CLIP, truncate=2), want, rtol=1e-6)

    def total(log_ratio):
        return clipped(log_ratio, worth, **CLIP).sum()

    slopes = jax.grad(total)(jnp.log(ratio))
    np.testing.assert_allclose(slopes, [0, -1.5, 0.5, 0, 2.2, -6], rtol=1e-6)
    stuck = losses.is_clipped(jnp.log(ratio), worth, **CLIP)
    assert stuck.tolist() == (slopes == 0).tolist()


def test_importance_weights_are_truncated_and_have_no_gradient():
    logps, ratio = jnp.array([-1.0, -1.0]), jnp.array([3.0, 0.5])
    worth = jnp.array([0.5, 0.5])
    assert reinforce(logps, jnp.log(ratio), worth).tolist() == [-0.5, -0.5]
    weighted = partial(reinforce, advantages=worth, truncate=2.0)
    np.testing.assert_allclose(weighted(logps, jnp.log(ratio)), [-1, -0.25], rtol=1e-6)
    slopes = jax.grad(lambda logps: weighted(logps, logps - jnp.log(1 / ratio) + 1).sum())(logps)
    np.testing.assert_allclose(slopes, [1, 0.25], rtol=1e-6)


def test_a_sequences_ratio_is_its_tokens_mean_and_padding_says_nothing():
    ratios = jnp.array([[0.3, -0.1, 0.5, 9.0], [0.2, 9.0, 9.0, 9.0]])
    sequence = jnp.array([[0, 0, 2, 3], [1, 3, 3, 3]])
    means = sequence_log_ratio(ratios, sequence, 3)
    np.testing.assert_allclose(means[sequence < 3], [0.1, 0.1, 0.5, 0.2], rtol=1e-6)
    slopes = jax.grad(lambda x: clipped(sequence_log_ratio(x, sequence, 3), 1.0, **CLIP)[0, 0] * 2)(
        ratios
    )
    half = float(jnp.exp(0.1))  # of each of the two tokens, for both of them
    np.testing.assert_allclose(slopes, [[half, half, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_estimators_of_the_kl():
    """Of pi = (0.75, 0.25) and base = (0.5, 0.5), in the mean over what pi draws; k2 has the KL's
    gradient to the logit of pi, and k1 none."""
    figures = [float(k(jnp.array(0.2))) for k in (k1, k2, k3)]
    assert figures == pytest.approx([0.2, 0.02, 0.01873075], rel=1e-5)
    base = jnp.log(jnp.array([0.5, 0.5]))
    start = jnp.log(3.0)

    def logps(logit):
        return jax.nn.log_softmax(jnp.array([logit, 0.0]))

    def kl(logit):
        return (jnp.exp(logps(logit)) * (logps(logit) - base)).sum()

    drawn = jnp.exp(logps(start))
    for unbiased in (k1, k3):
        assert float(drawn @ unbiased(logps(start) - base)) == pytest.approx(float(kl(start)))
    slopes = [float(jax.grad(lambda x, k=k: drawn @ k(logps(x) - base))(start)) for k in (k1, k2)]
    assert slopes == pytest.approx([0, float(jax.grad(kl)(start))], abs=1e-6)


@pytest.mark.parametrize("behaviour", [0.0, 0.7])
def test_the_gradient_is_the_exact_policy_gradient(behaviour):
    """J = sum_y pi(y) R(y) of two tokens, rewards 1 and 0.2. Sampling from pi, clipping and
    REINFORCE have dJ / d logit at the first step; from another policy, the unclipped ratio has."""
    rewards = jnp.array([1.0, 0.2])
    worth = rewards - 0.6

    def logps(logit):
        return jax.nn.log_softmax(jnp.array([logit, 0.0]))

    exact = jax.grad(lambda x: jnp.exp(logps(x)) @ rewards)(0.0)
    assert float(exact) == pytest.approx(0.25 * 0.8)
    drawn = logps(behaviour)

    def estimate(objective, logit):
        return jnp.exp(drawn) @ objective(logps(logit), logps(logit) - drawn)

    objectives = [
        lambda logps, log_ratio: clipped(log_ratio, worth, low=1.0, high=9.0),
        lambda logps, log_ratio: reinforce(logps, log_ratio, worth, truncate=9.0),
        lambda logps, log_ratio: clipped(log_ratio, worth, **CLIP),
        lambda logps, log_ratio: reinforce(logps, log_ratio, worth),
    ]
    for objective in objectives[: 2 if behaviour else 4]:
        slope = jax.grad(partial(estimate, objective))(0.0)
        assert float(slope) == pytest.approx(float(exact), rel=1e-5)


LENGTHS = [3, 5, 2]
MASK = np.arange(5) < np.array(LENGTHS)[:, None]
RNG = np.random.default_rng(0)
LOGPS, DRAWN, BASE = (RNG.normal(-1.5, 0.6, MASK.shape).astype(np.float32) for _ in range(3))
WORTH = np.float32([0.8, -0.5, -0.3])
SEQUENCE = np.where(MASK, np.arange(3)[:, None], 3)


def ours(objective, weights, *, sequence=False, kl=0.0):
    """A loss from TRL's [B, T] numbers; `weights` are a token's in the mean."""
    ratio = jnp.where(MASK, LOGPS - DRAWN, 0.0)
    if sequence:
        ratio = sequence_log_ratio(ratio, jnp.asarray(SEQUENCE), 3)
    figure = -objective(ratio, jnp.broadcast_to(WORTH[:, None], MASK.shape))
    return float((np.where(MASK, figure + kl * k3(jnp.asarray(LOGPS - BASE)), 0) * weights).sum())


TOKENS, SEQUENCES = 1 / sum(LENGTHS), 1 / np.array(LENGTHS)[:, None] / 3
PPO, BOUNDED = partial(clipped, **CLIP), partial(clipped, **CLIP, truncate=1.5)
CISPO = partial(reinforce, jnp.asarray(LOGPS), truncate=1.2)
VARIANTS = {
    "dapo": ({"loss_type": "dapo"}, ours(PPO, TOKENS)),
    "dr_grpo": ({"loss_type": "dr_grpo"}, ours(PPO, 1 / 3 / 8)),
    "grpo": ({"loss_type": "grpo"}, ours(PPO, SEQUENCES)),
    "grpo with kl": ({"loss_type": "grpo", "beta": 0.1}, ours(PPO, SEQUENCES, kl=0.1)),
    "dapo with kl": ({"loss_type": "dapo", "beta": 0.04}, ours(PPO, TOKENS, kl=0.04)),
    "dapo with delta": ({"loss_type": "dapo", "delta": 1.5}, ours(BOUNDED, TOKENS)),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        ours(PPO, SEQUENCES, sequence=True),
    ),
    "gspo by tokens": (
        {"loss_type": "dapo", "importance_sampling_level": "sequence"},
        ours(PPO, TOKENS, sequence=True),
    ),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.2}, ours(CISPO, TOKENS)),
}


@pytest.fixture(scope="module")
def grpo(tmp_path_factory):
    """A GRPO trainer whose policy gives the log-probabilities above."""
    trl = pytest.importorskip("trl", reason="parity with TRL's trainers needs trl and torch")
    import torch
    from datasets import Dataset
    from words import tiny_llama, tokenizer

    config = trl.GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("grpo")),
        per_device_train_batch_size=3,
        num_generations=3,
        max_completion_length=8,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    trainer = trl.GRPOTrainer(
        tiny_llama(0),
        lambda completions, **_: [0.0] * len(completions),
        config,
        Dataset.from_dict({"prompt": ["w1"] * 3}),
        processing_class=tokenizer(),
    )
    scores = (torch.tensor(LOGPS), torch.ones(MASK.shape), None)
    trainer._get_per_token_logps_and_entropies = lambda *args, **named: scores
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_equal_trl(grpo, name):
    import torch

    settings, want = VARIANTS[name]
    settings = {
        "beta": 0.0,
        "epsilon_high": CLIP["high"],
        "importance_sampling_level": "token",
    } | settings
    grpo.args.delta = settings.pop("delta", None)
    grpo.args.use_bias_correction_kl = False
    grpo.epsilon_low = CLIP["low"]
    for key, value in settings.items():
        setattr(grpo, key, value)
    ids = torch.zeros(MASK.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": torch.tensor(MASK).long(),
        "advantages": torch.tensor(WORTH),
        "old_per_token_logps": torch.tensor(DRAWN),
        "ref_per_token_logps": torch.tensor(BASE),
        "num_items_in_batch": torch.tensor(float(sum(LENGTHS))),
    }
    assert float(grpo._compute_loss(None, inputs)) == pytest.approx(want, rel=1e-5)
