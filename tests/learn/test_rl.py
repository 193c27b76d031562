"""Learning by policy gradient from what the sampler drew: ratios begin at 1, log-probabilities are
those of the distribution that was sampled, and what cannot be learned from is said."""

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import trees
from preferences import adapter
from recipes import change, good
from training import exported, metrics, recipe, with_phase

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.config.rl import RlSettings
from malt_jax.config.settings import Settings
from malt_jax.learn import datasets, examples, logprobs, steps
from malt_jax.learn.logprobs import Drawn
from malt_jax.learn.packing import examples as examples_of
from malt_jax.learn.packing import plan
from malt_jax.learn.phases import phase, rl
from malt_jax.learn.phases.phase import Family
from malt_jax.recipe import parse
from malt_jax.rollout import driver, records
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.runtime import mesh
from malt_jax.sampler import Sampling, Work
from malt_jax.sampler.draw import truncate
from malt_jax.stages import train
from malt_jax.workdir import shards

CREDIT = CreditSettings(truncated=True)


# Less sharp than the model of other trainings: at logits of 50 a last bit is 4e-6.
MODEL = small.model(scale=2.0)


@lru_cache
def graded(sampling: Sampling) -> list[dict]:
    """The rows of two trees that the sampler drew so, with scores by chance."""
    playing = replace(trees.team(scale=2.0), sampling=sampling)
    drawn = driver.grow(full_tree(playing), trees.QUESTIONS[:2], lambda *_: None, Work())
    rng = np.random.default_rng(0)
    return [
        row | {"score": None if row["score"] is None else float(rng.integers(2))}
        for tree in drawn
        for row in tree
    ]


def loaded(workdir: Path, sampling: Sampling) -> tuple[examples.Data, Settings]:
    """The refiner's rows of those trees, written and read, and the settings they are learned
    under."""
    nodes = credit.assign(graded(sampling), CREDIT, 0)
    rows = datasets.harvest(nodes, ["refiner"], CREDIT)["refiner"].rows["rl"]
    assert len(rows) >= 12
    path, settings = workdir / "datasets" / "refiner" / "rl.parquet", of(sampling)
    shards.write(path, rows, rl.SCHEMA)
    fresh = jax.tree.map(jnp.zeros_like, adapter(0))
    return examples.load(path, workdir, rl.PHASE, settings, MODEL, mesh.make(), fresh)[0], settings


def of(sampling: Sampling, **chosen) -> Settings:
    """The settings of a run that learns from samples drawn so."""
    settings = recipe(("rl",), batch=12, **chosen)
    top = {"top_k": sampling.top_k, "top_p": sampling.top_p}
    sample = replace(settings.sample, temperature=sampling.temperature, **top)
    return replace(settings, sample=sample)


SAMPLINGS = [Sampling(0.7), Sampling(1.3, top_k=20, top_p=0.9)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_first_steps_ratios_are_1_to_the_last_bits(sampling, tmp_path):
    """Of the base that drew the samples, packed rows against paged decoding. Its log-probabilities
    of the drawn tokens are stored for the KL to it."""
    data, settings = loaded(tmp_path, sampling)
    order = plan(data.examples, batch=len(data), accumulate=1, epochs=1, seed=[0])
    batch, extra = data.step(rl.PHASE, order, 0, MODEL.tokenizer.pad_id)
    drawn = rl.drawn(settings.phases["rl"], settings.sample)
    counted = batch.counted
    assert counted.sum() > 100
    exact, own = (
        logprobs.base_logprobs(MODEL.config, MODEL.params, jax.tree.map(jnp.asarray, batch), of)
        for of in (drawn, None)
    )
    assert np.abs(np.asarray(exact) - extra["behaviour"])[counted].max() < 4e-6
    assert np.abs(np.asarray(own) - extra["behaviour"])[counted].max() > 0.1


@pytest.mark.parametrize("sampling", [*SAMPLINGS, Sampling(1.0, top_k=5)])
def test_scores_and_gradients_are_those_of_the_full_logits(sampling, monkeypatch):
    """Of log-probabilities and entropies; three chunks, the last of them partly used."""
    monkeypatch.setattr(logprobs, "CHUNK", 4)
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, head = jax.random.normal(keys[0], (2, 16, 8)), jax.random.normal(keys[1], (40, 8))
    target = jax.random.randint(keys[2], (2, 16), 0, 40)
    weights = jnp.where(jnp.arange(16) < 10, jax.random.normal(keys[3], (2, 2, 16)), 0.0)

    def naive(hidden):
        logits = hidden @ head.T
        kept = truncate(logits, sampling.top_k, sampling.top_p, sampling.temperature)
        kept = jnp.where(jnp.arange(40) == target[..., None], logits, kept)
        logps = jax.nn.log_softmax(kept / sampling.temperature)
        probs = jnp.exp(logps)
        entropy = -jnp.sum(probs * jnp.where(probs > 0, logps, 0.0), -1)
        return jnp.take_along_axis(logps, target[..., None], -1)[..., 0], entropy

    def chunked(hidden):
        drawn = Drawn(sampling, entropy_gradient=True)
        return logprobs._score_drawn(hidden, head, target, jnp.array(10), drawn)

    def loss(score, hidden):
        return sum(jnp.sum(w * x) for w, x in zip(weights, score(hidden), strict=True))

    for got, want in zip(chunked(hidden), naive(hidden), strict=True):
        np.testing.assert_allclose(got[:, :10], want[:, :10], atol=2e-5)
    got, want = (jax.grad(loss, argnums=1)(score, hidden) for score in (chunked, naive))
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_right_answers_gain_and_all_metrics_are_there(tmp_path):
    loaded(tmp_path, SAMPLINGS[0])
    settings = of(SAMPLINGS[0], epochs=6, held_out=0.4, eval_every=3)
    weights = {"kl_weight": 0.1, "kl": "k2", "entropy_weight": 0.01}
    chosen = replace(settings.phases["rl"], ratio="token", **weights)
    settings = with_phase(settings, "rl", replace(chosen, role_statistics="scale"))
    train.run(tmp_path, settings, MODEL, mesh.make())
    rows = [row for row in metrics(tmp_path, "rl") if not row.get("eval")]
    assert rows[0]["ratio_deviation"] < 1e-5 < rows[-1]["ratio_deviation"]
    assert rows[0]["kl_base"] < 1e-9 < rows[-1]["kl_base"]
    assert rows[0]["clipped"] == 0 < rows[0]["entropy"]
    assert rows[-1]["surrogate"] < rows[0]["surrogate"] - 0.01
    assert rows[0]["loss"] == pytest.approx(
        rows[0]["surrogate"] - 0.01 * rows[0]["entropy"], abs=1e-5
    )
    assert (tmp_path / "checkpoints" / "refiner" / "rl" / "base.npz").exists()
    assert exported(tmp_path)


def test_a_step_in_parts_is_the_step(tmp_path):
    """Tokens of the whole step divide: 1 x 12 and 6 x 2 examples have one loss."""
    data, settings = loaded(tmp_path, SAMPLINGS[0])
    chosen = replace(settings.phases["rl"], ratio="sequence", clip_low=0.01, clip_high=0.01)
    drawn = rl.drawn(chosen, settings.sample)
    evaluate = steps.evaluation(MODEL.config, rl.loss(chosen), drawn=drawn)

    def scores(batch, accumulate):
        order = plan(data.examples, batch=batch, accumulate=accumulate, epochs=1, seed=[0])
        inputs = steps.place(mesh.make(), *data.step(rl.PHASE, order, 0, MODEL.tokenizer.pad_id))
        figures = evaluate(MODEL.params, adapter(2), adapter(3), *inputs)
        return {name: float(figure) for name, figure in figures.items()}

    whole = scores(12, 1)
    assert whole == pytest.approx(scores(2, 6), rel=1e-4, abs=1e-6)
    assert whole["clipped"] > 0


def siblings(*values: float, **columns) -> Family:
    rows = [
        {"completion": "abcdefg"[i], "value": value, "label": value > 0.5, "prompt": "p"}
        | {"question_id": "q", "prompt_token_ids": [1], "completion_token_ids": [2 + i]}
        | {"behaviour_logprobs": [-1.0], "finish_reason": "stop"}
        | {name: column[i] for name, column in columns.items()}
        for i, value in enumerate(values)
    ]
    return Family(rows, rows)


def test_rows_are_siblings_with_an_advantage():
    harvest = rl.rows(siblings(1, 1 / 3, 0), CreditSettings())
    assert [row["advantage"] for row in harvest.rows] == pytest.approx([5 / 9, -1 / 9, -4 / 9])
    assert [row["sibling_values"] for row in harvest.rows] == [
        [1, 1 / 3, 0],
        [1 / 3, 1, 0],
        [0, 1, 1 / 3],
    ]
    worth = rl.arrays(harvest.rows, replace(RlSettings(), advantage="leave_one_out"))
    assert worth["advantage"] == pytest.approx([5 / 6, -1 / 6, -2 / 3])
    level = rl.rows(siblings(1, 0.5, 0), CreditSettings())
    assert len(level.rows) == 2
    assert not any(level.dropped.values())
    assert rl.rows(siblings(0.5), CreditSettings()).rows == []
    assert rl.rows(siblings(), CreditSettings()).rows == []


def test_a_question_as_one_group_is_the_final_reward_spread_over_all():
    """Refinements of two solutions: against V(root) = 1/2 the worth of what they read counts too,
    and even siblings of one value have an advantage."""
    nodes = [
        {"question_id": "q", "node": node, "parent": parent, "score": score, "role": role}
        | {"prompt": f"p{parent}", "completion": str(node), "finish_reason": "stop"}
        | {"prompt_token_ids": [1], "completion_token_ids": [node], "behaviour_logprobs": [-1.0]}
        for node, (parent, score, role) in enumerate(
            [(-1, None, "g"), (-1, None, "g"), (0, 1, "r"), (0, 1, "r"), (1, 0, "r"), (1, 0, "r")]
        )
    ]
    whole = CreditSettings(group="question")
    rows = datasets.harvest(credit.assign(nodes, whole, 0), ["g", "r"], whole)
    assert [row["advantage"] for row in rows["g"].rows["rl"]] == [0.5, -0.5]
    assert [row["advantage"] for row in rows["r"].rows["rl"]] == [0.5, 0.5, -0.5, -0.5]
    apart = datasets.harvest(credit.assign(nodes, CREDIT, 0), ["g", "r"], CREDIT)
    assert [row["advantage"] for row in apart["g"].rows["rl"]] == [0.5, -0.5]
    assert apart["r"].rows["rl"] == []


def test_a_truncated_sample_is_no_row_but_part_of_the_mean():
    cut = siblings(1, 1 / 3, 0, finish_reason=["stop", "stop", "length"])
    masked, kept = (rl.rows(cut, CreditSettings(truncated=learned)) for learned in (False, True))
    assert [row["advantage"] for row in masked.rows] == pytest.approx([5 / 9, -1 / 9])
    assert masked.dropped["rl: truncated"] == 1
    assert len(kept.rows) == 3


@pytest.mark.parametrize(
    ("family", "why"),
    [
        (siblings(1, 0, behaviour_logprobs=[None, None]), "2 samples .* collect trees anew for rl"),
        (siblings(1, 0, finish_reason=["length"] * 2), "all 2 .*config.credit.truncated=True"),
        (siblings(1, 1), "no parent has children of different values.*config.sample.temperature"),
    ],
)
def test_why_a_role_has_no_rows(family, why):
    rows, dropped = rl.rows(family, CreditSettings())
    assert re.search(why, rl.lacks({"rl_rows": len(rows), "dropped": dict(dropped)}))


def test_log_probabilities_of_other_tokens_are_refused():
    rows = rl.rows(siblings(1, 0, behaviour_logprobs=[[-1.0], [-1.0, -2.0]]), CreditSettings()).rows
    with pytest.raises(ValueError, match="'q': 2 behaviour_logprobs for 1 completion tokens"):
        rl.arrays(rows, RlSettings())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sample.temperature": 0.0}, "config.sample.temperature: 0 is greedy.* leave rl out of"),
        (
            {"rl.ratio": "token", "rl.truncate": 1.1},
            "config.rl.truncate: must be above 1 . config.rl.clip_high",
        ),
        ({"rl.clip_low": 0.0}, r"config.rl.clip_low: must be in \(0, 1\]"),
        ({"rl.advantage": "gae"}, "config.rl.advantage"),
    ],
)
def test_settings_are_refused_by_key(changes, fault):
    config = change(good(), "roles.refiner.train", ("rl",))
    for key, value in changes.items():
        change(config, key, value)
    with pytest.raises(ValueError, match=fault):
        parse(config)


def test_only_children_are_refused_before_anything_is_sampled():
    from types import SimpleNamespace

    config = change(change(good(), "roles.refiner.train", ("rl",)), "roles.refiner.branching", 1)
    job = SimpleNamespace(
        settings=parse(config), chain=None, task=None, systems=None, single_agent=None
    )
    with pytest.raises(ValueError, match=r"config.roles.refiner.branching: 1, but rl compares"):
        train.STAGE.foresees(job)


def test_a_collapse_of_entropy_is_told_with_the_figures():
    told = rl.warns({"entropy": 0.5}, {"entropy": 0.1})
    assert "from 0.5 to 0.1 nats a token" in told
    assert "config.rl.entropy_weight" in told
    assert rl.warns({"entropy": 0.5}, {"entropy": 0.3}) == ""
    assert rl.warns({"entropy": 0.5}, {"entropy": None}) == "", "not finite"


def test_a_collapse_of_length_is_told_with_the_figures():
    def figures(likely: float | None, tokens: float | None) -> dict:
        return {"entropy": 0.5, "likely": likely, "likely_tokens": tokens}

    told = rl.warns(figures(1.0, 24.0), figures(0.5, 5.0))
    assert "now makes likely have 10 tokens, after 24:" in told
    assert "config.rl.kl_weight" in told
    assert rl.warns(figures(1.0, 24.0), figures(0.5, 6.5)) == ""
    for after in (figures(0.0, 0.0), figures(None, None), {"entropy": 0.5}):
        assert rl.warns(figures(1.0, 24.0), after) == ""


def test_likely_lengths_by_hand():
    """Of completions of 2 and 4 tokens the policy makes the short one 4 times as likely and the
    long one a quarter: (4 x 2 + 1/4 x 4) / (4 + 1/4)."""
    log_ratio = np.log([4.0, 0.25]) / [2, 4]
    behaviour = [[-1.0] * 2, [-2.0] * 4]
    logps = [np.add(b, r) for b, r in zip(behaviour, log_ratio, strict=True)]
    packed = examples_of([[1]] * 2, [[[2] * 2], [[2] * 4]], 99, ["short", "long"])
    arrays = {"advantage": np.ones(2, np.float32), "behaviour": phase.ragged(behaviour)}
    arrays["logps"] = phase.ragged(logps)
    data = examples.Data(packed, Path(), np.array(["short", "long"]), arrays)
    order = plan(packed, batch=2, accumulate=1, epochs=1, seed=[0])
    batches, extra = data.step(rl.PHASE, order, 0, 0)
    scores = phase.StepData(order.order[0], packed, arrays, batches).of_tokens("logps")
    extra["entropy"] = np.zeros_like(scores)
    given = jax.tree.map(lambda x: x[0], (scores, batches, extra))
    _, made = rl.loss(RlSettings())(*given)
    assert float(made["likely"]) == pytest.approx(4.25 / 2)
    assert float(made["likely_tokens"]) == pytest.approx(9 / 2)


def test_records_have_what_the_rows_are_made_of():
    assert set(rl.PHASE.reads) <= set(records.SCHEMA.names)
