"""What the stages are given: prompts that fit, and questions that do not overlap."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
from exports import SHAPE, another_base, drawn, made_elsewhere
from jobs import a_job, write
from recipes import change, good

from malt_jax import export, stages
from malt_jax.recipe import parse
from malt_jax.rollout import roles
from malt_jax.rollout.strategies import debate
from malt_jax.types import Question


def test_training_overlaps_with_no_part_of_the_evaluation_split(tmp_path):
    """Only the evaluated questions were excluded, so that a later, larger evaluation was trained
    on."""
    held_out = [f"What is {i} divided by {i}?" for i in range(1, 9)]
    prepared = a_job(
        tmp_path,
        data__task="jsonl",
        data__train=write(tmp_path / "train.jsonl", [*held_out, "And 3 - 2?", "And 9 - 8?"]),
        data__eval=write(tmp_path / "eval.jsonl", held_out),
        data__train_questions=0,
        data__eval_questions=2,
    )
    assert len(prepared.held_out) == 2
    assert {q.text for q in prepared.training} == {"And 3 - 2?", "And 9 - 8?"}
    report = json.loads((tmp_path / "data.json").read_text())
    assert report["train"]["overlap_exact"] == 8
    counts = {name: report["eval"][name] for name in ("read", "kept", "beyond_limit")}
    assert counts == {"read": 8, "kept": 2, "beyond_limit": 6}


@pytest.mark.parametrize("where", ["eval", "exclude"])
def test_training_overlaps_with_no_test_question_that_cannot_be_asked(tmp_path, where):
    """They were left out of the test set before training was held against it, so that the same
    problem in fewer words, or with a readable answer, was trained on."""
    story = "Nora has 12 red marbles and 7 blue marbles in a box and gives 3 of them to Sam."
    asked, file = tmp_path / "asked.jsonl", tmp_path / "test.jsonl"
    write(asked, ["What is 2 divided by 2?"])
    rows = [(story + " How many are left?" + " And so on." * 99, "16"), ("What is x?", "...")]
    unasked = "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows)
    file.write_text(unasked + asked.read_text())
    prepared = a_job(
        tmp_path,
        data__task="jsonl",
        data__train=write(tmp_path / "train.jsonl", [story, "What is x?", "And 3 - 2?"]),
        data__eval=str(file if where == "eval" else asked),
        data__exclude=(f"jsonl:{file}",) if where == "exclude" else (),
        data__train_questions=0,
        data__eval_questions=0,
    )
    assert [q.text for q in prepared.held_out] == ["What is 2 divided by 2?"]
    assert [q.text for q in prepared.training] == ["And 3 - 2?"]


def test_no_question_left_is_an_error_that_says_where_to_look(tmp_path):
    file = write(tmp_path / "same.jsonl", ["What is 1+0?"])
    prepared = a_job(
        tmp_path,
        data__task="jsonl",
        data__train=file,
        data__eval=file,
        data__train_questions=0,
        data__eval_questions=0,
    )
    with pytest.raises(ValueError, match=r"config.data.train: no question is left .*data.json"):
        _ = prepared.training


def test_the_longest_prompts_fit_the_context(tmp_path):
    """The budget is exact: a question of that length and completions of their limits fill the
    context, and one token more does not fit."""
    prepared = a_job(tmp_path)
    tokenizer, context = prepared.model.tokenizer, prepared.model.config.context
    room = roles.question_budget(prepared.chain, prepared.task.answer_hint, context, tokenizer)
    limits = {role.name: role.max_new_tokens for role in prepared.chain}
    seen = {name: "x" * (3 * limit) for name, limit in limits.items()}  # cut to the limits
    longest = [
        len(roles.prompt_ids(role, Question("", "y" * room, ""), "", seen, limits, tokenizer))
        + role.max_new_tokens
        for role in prepared.chain
    ]
    assert max(longest) == context


def test_a_chain_without_room_for_a_question_is_refused(tmp_path):
    prepared = a_job(tmp_path, roles__refiner__max_new_tokens=600)
    with pytest.raises(ValueError, match=r"leave no room for a question in the model's context"):
        _ = prepared.training


def test_a_debate_without_room_for_a_question_is_refused_before_anything_is_sampled(tmp_path):
    """The chain alone was measured; the sampler refused the first debate after everything else."""
    few = {"eval__systems": ("sa", "debate"), "roles__generator__max_new_tokens": 24}
    stages.check(a_job(tmp_path, **few).settings)
    prepared = a_job(tmp_path, **few, eval__debate__agents=30)
    with pytest.raises(
        ValueError, match=r"config.eval.debate: .*max_new_tokens=24 .*context.*debate.agents"
    ):
        stages.check(prepared.settings)
    few["eval__systems"] = ("sa",)
    stages.check(a_job(tmp_path, **few, eval__debate__agents=30).settings)


def test_a_question_too_long_to_be_debated_is_left_out_of_the_test_set_alone(tmp_path):
    given = {
        "eval__systems": ("sa", "debate"),
        "eval__debate__agents": 9,
        "data__task": "jsonl",
        "data__train_questions": 0,
        "data__eval_questions": 0,
    }
    prepared = a_job(tmp_path, **given)
    room, debated = prepared.rooms["train"], prepared.rooms["eval"]
    assert debated < room
    first, how, tokenizer = (
        prepared.chain[0],
        prepared.settings.eval.debate,
        prepared.model.tokenizer,
    )
    size = debate.prompt_size(first, how, prepared.task.answer_hint, tokenizer)
    assert debated + size + first.max_new_tokens == prepared.model.config.context
    texts = ["a" * debated, "b" * (debated + 1)]
    train = write(tmp_path / "train.jsonl", [text[:-1] + "?" for text in texts])
    test = write(tmp_path / "eval.jsonl", texts)
    two = a_job(tmp_path, **given, data__train=train, data__eval=test)
    assert [q.text for q in two.held_out] == texts[:1]
    assert len(two.training) == 2


def test_evaluation_uses_an_adapter_made_elsewhere(tmp_path):
    """Nothing is trained here; the trained team is the base with PEFT's adapter for one role."""
    changes = {f"roles.{name}.train": () for name in ("generator", "verifier", "refiner")}
    changes |= {f"roles.{name}.max_new_tokens": 8 for name in ("generator", "verifier", "refiner")}
    changes |= {"workdir": str(tmp_path / "run"), "model.path": str(small.save(tmp_path / "base"))}
    changes |= {"roles.verifier.adapter": str(tmp_path / "peft"), "data.eval_questions": 2}
    changes |= {"sample.rows": 6, "eval.resamples": 10}
    made_elsewhere(tmp_path / "base", tmp_path / "peft")
    config = good()
    for key, value in changes.items():
        change(config, key, value)
    stages.run(parse(config), config, ["evaluate"])
    rows = pq.read_table(tmp_path / "run" / "eval" / "predictions.parquet").to_pylist()
    texts = {
        (system, role): [
            r["completion"] for r in rows if (r["system"], r["role"]) == (system, role)
        ]
        for system in ("ma", "malt")
        for role in ("generator", "verifier")
    }
    assert len(texts["ma", "generator"]) == 6
    assert texts["ma", "generator"] == texts["malt", "generator"]
    assert all(
        a != b for a, b in zip(texts["ma", "verifier"], texts["malt", "verifier"], strict=True)
    )


def test_an_export_of_another_base_is_not_evaluated(tmp_path):
    prepared = a_job(tmp_path, roles__generator__train=(), roles__refiner__train=(), **SHAPE)
    with pytest.raises(ValueError, match=r"export/verifier: not there; run --stage=train first"):
        prepared.adapters()
    export.write(tmp_path, prepared.settings, prepared.model, "verifier", drawn(prepared.model))
    assert set(prepared.adapters()) == {"verifier"}
    prepared.__dict__["model"] = another_base(tmp_path / "other")
    with pytest.raises(ValueError, match=r"export/verifier: made for another base model"):
        prepared.adapters()


def test_trees_of_another_base_are_not_gone_on_with(tmp_path):
    """The hash in config.json was overwritten, and old and new trees were mixed."""
    prepared = a_job(tmp_path)
    stages.claim(tmp_path, good())
    prepared.claim_base()
    recorded = json.loads((tmp_path / "config.json").read_text())
    assert recorded["base_hash"] == prepared.model.content_hash
    prepared.__dict__["model"] = another_base(tmp_path / "other")
    (tmp_path / "trees").mkdir()
    with pytest.raises(ValueError, match="made for another base model"):
        prepared.claim_base()
    assert json.loads((tmp_path / "config.json").read_text()) == recorded
    (tmp_path / "trees").rmdir()
    prepared.claim_base()
    again = json.loads((tmp_path / "config.json").read_text())
    assert again["base_hash"] == prepared.model.content_hash != recorded["base_hash"]


def test_weights_are_placed_by_the_table(tmp_path):
    prepared = a_job(tmp_path)
    original = small.model(scale=4.0).params
    np.testing.assert_array_equal(prepared.model.params["embed"], original["embed"])
    assert prepared.model.params["embed"].sharding.mesh == prepared.mesh
