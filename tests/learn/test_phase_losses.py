"""Every loss that the settings name trains a model, begins at the figure worked out by hand, and is
one loss however a step is split."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from preferences import BETA, LOG2, adapter, dpo
from training import MODEL, metrics, recipe, with_phase, write_data

from malt_jax.learn import examples, losses, steps, unpaired
from malt_jax.learn.packing import plan
from malt_jax.learn.phases import PHASES
from malt_jax.runtime import mesh
from malt_jax.stages import train

# At the first step the policy is the reference, so every log-ratio is 0.
FIRST = {
    "sigmoid": LOG2,
    "ipo": (1 / (2 * BETA)) ** 2,
    "hinge": 1.0,
    "robust": LOG2,
    "sigmoid_norm": LOG2,
}
LIKE_SIGMOID = ("hinge", "robust", "sigmoid_norm")  # other literals, the same way through the code


@pytest.mark.parametrize(
    "kind", ["sigmoid", "ipo", *(pytest.param(k, marks=pytest.mark.slow) for k in LIKE_SIGMOID)]
)
def test_a_preference_loss_trains_from_its_literal(kind, tmp_path):
    write_data(tmp_path)
    settings = with_phase(
        recipe(("dpo",)), "dpo", dpo(kind, batch=10, epochs=6, checkpoint_every=100)
    )
    train.run(tmp_path, settings, MODEL, mesh.make())
    rows = metrics(tmp_path, "dpo")
    assert rows[0]["loss"] == pytest.approx(FIRST[kind], rel=1e-4)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert rows[-1]["margin"] > rows[0]["margin"]


def test_kto_trains_from_its_literal(tmp_path):
    """4 of 10 rows are desirable: (4 x 2.0 + 6 x 0.5) / 10 times sigmoid(0)."""
    write_data(tmp_path)
    settings = recipe(("kto",), batch=10, epochs=12, checkpoint_every=100)
    weights = replace(settings.phases["kto"], desirable=2.0, undesirable=0.5)
    settings = with_phase(settings, "kto", weights)
    train.run(tmp_path, settings, MODEL, mesh.make())
    rows = metrics(tmp_path, "kto")
    assert rows[0]["loss"] == pytest.approx(1.1 / 2, rel=1e-4)
    assert rows[0]["reference_point"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert rows[-1]["margin"] > 0.1
    assert rows[-1]["accuracy"] > 0.7


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every phase's examples under a reference that is not the policy below."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, n=16)
    settings, devices = recipe(), mesh.make()

    def load(name):
        path = folder / "datasets" / "refiner" / f"{name}.parquet"
        of_phase = folder / name
        return examples.load(path, of_phase, PHASES[name], settings, MODEL, devices, adapter(1))[0]

    return {name: load(name) for name in ("sft", "dpo", "kto")}


def evaluated(name: str, settings, data, batch: int, accumulate: int) -> dict[str, float]:
    """A phase's metrics on its examples in `data`, by name."""
    phase, data = PHASES[name], data[name]
    order = plan(data.examples, batch=batch, accumulate=accumulate, epochs=1, seed=[0])
    inputs = steps.place(mesh.make(), *data.step(phase, order, 0, MODEL.tokenizer.pad_id))
    evaluate = steps.evaluation(MODEL.config, phase.loss(settings))
    scores = evaluate(MODEL.params, adapter(2), adapter(3), *inputs)
    return {name: float(value) for name, value in scores.items()}


@pytest.mark.parametrize(
    ("phase", "settings"), [("sft", recipe().phases["sft"]), ("dpo", dpo("ipo", rpo_alpha=0.7))]
)
def test_a_step_in_eight_parts_is_the_step(phase, settings, data):
    """The added SFT term is a mean over the step's tokens, so its denominator is of all eight."""
    whole, parts = (evaluated(phase, settings, data, *split) for split in ((16, 1), (2, 8)))
    assert whole == pytest.approx(parts, rel=1e-4)


def test_the_added_sft_term_is_a_mean_over_chosen_tokens(data):
    plain, added = (evaluated("dpo", dpo("hinge", rpo_alpha=a), data, 16, 1) for a in (0.0, 0.5))
    assert added["loss"] - plain["loss"] == pytest.approx(0.5 * plain["nll"], rel=1e-3)
    sft = evaluated("sft", recipe().phases["sft"], data, 16, 1)
    assert plain["nll"] == pytest.approx(sft["loss"], rel=1e-4)  # the chosen are SFT's rows here


def test_kto_is_the_loss_of_whole_sequences_alone(data):
    """Each completion and each mismatched one in a row of its own, through the pure function."""
    settings = recipe().phases["kto"]
    figures = evaluated("kto", settings, data, 16, 1)
    packed = data["kto"].examples
    sums = np.zeros((2, len(packed), 2))
    for i in range(len(packed)):
        tokens, at = packed.tokens[packed.starts[i] : packed.starts[i + 1]], packed.prompts[i]
        for c, length in enumerate(packed.completions[i]):
            row = [*tokens[: packed.prompts[i]], *tokens[at : at + length]]
            at += length
            for k, seed in enumerate((2, 1)):
                sums[k, i, c] = logp(adapter(seed), row, length)
    np.testing.assert_allclose(data["kto"].arrays["reference"], sums[1], atol=1e-3)
    kl = unpaired.kl_reference(jnp.array(sums[0, :, 1]), jnp.array(sums[1, :, 1]))
    rows = unpaired.Unpaired(sums[0, :, 0], sums[1, :, 0], jnp.array(data["kto"].arrays["labels"]))
    want, means = unpaired.kto_loss(rows, kl, settings.beta)
    assert float(kl) > 0.1
    assert figures["loss"] == pytest.approx(float(want), rel=1e-4)
    assert figures["reference_point"] == pytest.approx(float(kl), rel=1e-3)
    for name in ("chosen_reward", "rejected_reward", "margin", "chosen_logp", "rejected_logp"):
        assert figures[name] == pytest.approx(float(means[name]), rel=1e-3, abs=1e-4)


@jax.jit
def _logps(adapter, tokens):
    hidden, _ = small.llama.forward(MODEL.config, MODEL.params, tokens, tokens >= 0, adapter)
    logits = small.llama.unembed(MODEL.config, MODEL.params, hidden)
    return losses.token_logprobs(logits[:, :-1], tokens[:, 1:])[0]


def logp(adapter, row: list[int], length: int) -> float:
    padded = jnp.array([[*row, *[0] * (32 - len(row))]])
    return float(_logps(adapter, padded)[len(row) - 1 - length : len(row) - 1].sum())
