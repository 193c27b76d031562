"""The stage as a whole on a small model: what is sampled, what is left, what a second run does."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import small
import toy_system
from recipes import change, good

from malt_jax import report, tasks
from malt_jax.evaluate import audit, evaluation, systems, voting
from malt_jax.models import lora
from malt_jax.recipe import parse
from malt_jax.rollout import roles
from malt_jax.rollout.team import Team
from malt_jax.runtime import mesh
from malt_jax.sampler import Sampler, Sampling
from malt_jax.types import Question
from malt_jax.workdir import shards

QUESTIONS = [Question(f"q{i}", f"{i}+{i}", str(2 * i)) for i in range(4)]
IDS = [question.id for question in QUESTIONS]
SYSTEMS = ("sa", "sa_mv", "ma", "ma_mv", "malt", "malt_mv", "debate")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A function that evaluates into one directory, that directory, and the settings."""
    workdir: Path = tmp_path_factory.mktemp("run")
    config = good()
    for role in ("generator", "verifier", "refiner"):
        change(config, f"roles.{role}.max_new_tokens", 8)
    for key, value in {
        "workdir": str(workdir),
        "eval.systems": SYSTEMS,
        "eval.votes": 2,
        "eval.critiques": True,
        "eval.debate.agents": 2,
        "eval.debate.rounds": 2,
        "eval.resamples": 100,
    }.items():
        change(config, key, value)
    parsed = parse(config)
    model, tokenizer = small.model(scale=4.0), small.tokenizer()
    sampler = Sampler(
        model.config, model.params, mesh.make(), 16, tokenizer.stop_ids, tokenizer.pad_id
    )
    chain, task = roles.chain(parsed), tasks.get("arithmetic")
    team = Team(sampler, tokenizer, chain, {}, task, Sampling(1.0), parsed.seed, "collect")
    adapter = jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.key(1), x.shape),
        lora.init(model.config, jax.random.key(0), rank=2, alpha=4.0),
    )
    adapters = {role.name: adapter for role in chain}

    def evaluate(place: Path = workdir, **other) -> dict:
        return evaluation.run(place, replace(parsed, **other), team, adapters, QUESTIONS)

    return evaluate, workdir, parsed


@pytest.fixture(scope="module")
def results(stage) -> dict:
    return stage[0]()


def test_every_system_has_its_row_and_its_outcomes(stage, results):
    assert tuple(results["systems"]) == SYSTEMS
    assert json.loads((stage[1] / "eval" / "results.json").read_text()) == results
    rows = shards.read_one(stage[1] / "eval" / "outcomes.parquet")
    for name in SYSTEMS:
        score, of_system = results["systems"][name], [row for row in rows if row["system"] == name]
        passes = 2 if name in ("sa", "ma", "malt") else 1  # every pass that was drawn, or the vote
        ids = [(row["question_id"], row["sample"]) for row in of_system]
        assert ids == [(q.id, sample) for q in QUESTIONS for sample in range(passes)]
        prompts = sum(row["prompt_tokens"] for row in of_system) / passes
        assert prompts == pytest.approx(score["tokens"]["prompt"], abs=1e-3)
        assert score["answers"] == passes * score["n"] == len(of_system)
        right = sum(row["status"] == "correct" for row in of_system)
        assert score["accuracy"] == pytest.approx(right / len(of_system))


def test_the_single_agent_votes_with_the_tokens_of_the_costliest_system(stage, results):
    costliest = max(sum(row["tokens"].values()) for row in results["systems"].values())
    last = results["voting"][-1]
    assert last["tokens"] >= costliest / len(QUESTIONS)
    assert results["voting"][0]["k"] == 1
    rows = results["equal_compute"]
    assert [(row["system"], row["voter"], row["price"]) for row in rows] == [
        ("malt_mv", "sa", "read_and_written"),
        ("malt_mv", "sa", "written"),
        ("malt_mv", "generator", "read_and_written"),
        ("malt_mv", "generator", "written"),
    ]
    assert all(row["voting"]["tokens"] >= row["tokens"] for row in rows)
    base = results["systems"]
    assert results["at_k"]["sa"][0]["pass"] == pytest.approx(results["voting"][0]["accuracy"])
    assert base["sa"]["n"] == len(QUESTIONS)
    # Samples beyond the stored passes have random numbers of their own.
    first, more = (
        {row["question_id"]: [] for row in shards.read(stage[1] / "eval" / name)}
        for name in ("base", "single-1")
    )
    for name, found_rows in (("base", first), ("single-1", more)):
        for row in shards.read(stage[1] / "eval" / name):
            if len(row["path"]) == 1:
                found_rows[row["question_id"]].append(row["completion_token_ids"])
    assert first.keys() == more.keys()
    assert all(a not in more[q] for q, drawn in first.items() for a in drawn)


def test_the_own_critique_is_what_the_vote_was_taken_with(results):
    with_own = results["critiques"]["own"]
    assert with_own["accuracy"] == results["systems"]["malt_mv"]["accuracy"]
    assert set(results["critiques"]) == {"own", "other", "none"}


def test_a_second_run_samples_nothing(stage, results, monkeypatch):
    monkeypatch.setattr(Sampler, "run", lambda *a, **k: pytest.fail("sampled again"))
    again = stage[0]()
    assert {**again, "seconds": 0} == {**results, "seconds": 0}


def test_no_vote_is_counted_twice(stage, results, monkeypatch):
    """The single agent's were, for its curve and again for its row of at_k."""
    counted, votes = [], voting.votes

    def count(finals, k):
        counted.append((k, json.dumps(finals)))
        return votes(finals, k)

    monkeypatch.setattr(voting, "votes", count)
    assert stage[0]()["voting"] == results["voting"]
    assert len(counted) == len(set(counted)) > 3


def test_a_new_system_takes_a_file_and_a_line(stage, results, monkeypatch):
    """The trained generator alone, by a vote of five: more than the others' passes, so its own."""
    evaluate, workdir, parsed = stage
    monkeypatch.setitem(systems.SYSTEMS, "generator_mv5", toy_system.generator_vote)
    wanted = replace(parsed, eval=replace(parsed.eval, systems=("sa", "malt", "generator_mv5")))
    scored = evaluate(eval=wanted.eval)
    assert tuple(scored["systems"]) == ("sa", "malt", "generator_mv5")
    assert scored["described"]["generator_mv5"]["votes"] == 5
    assert scored["at_k"]["generator_mv5"][-1]["k"] == 5
    assert scored["systems"]["sa"] == results["systems"]["sa"]
    outcomes = shards.read_one(workdir / "eval" / "outcomes.parquet")
    assert [r["question_id"] for r in outcomes if r["system"] == "generator_mv5"] == IDS
    # The same random numbers: its first samples are those that the team began with.
    stored, team = (
        {(row["question_id"], *row["path"]): row["completion"] for row in shards.read(place)}
        for place in (workdir / "eval" / "malt" / "votes-5", workdir / "eval" / "malt")
    )
    assert len(stored) == 5 * len(QUESTIONS)
    assert all(stored[q, i] == team[q, i] for q in IDS for i in range(2))
    audited = audit.run(workdir, wanted)
    assert (
        audited["systems"]["generator_mv5"]["graded"]
        == scored["systems"]["generator_mv5"]["accuracy"]
    )
    assert audited["systems"]["generator_mv5"]["n"] == len(QUESTIONS)
    report.write(workdir)
    text = (workdir / "report" / "report.md").read_text()
    assert any(line.startswith("| generator_mv5 |") for line in text.splitlines())
    assert "the trained generator (generator, majority of 5)" in (
        " ".join((workdir / "report" / "index.html").read_text().split())
    )


def test_the_single_agent_behind_a_planner_answers_as_it_does_alone(stage, results, tmp_path):
    """Its row graded the planner's text, because a planner came first."""
    evaluate, _, parsed = stage
    generator = parsed.roles["generator"]
    planner = replace(generator, prompt="Plan: {question}")
    others = {"chain": ("planner",), "roles": {**parsed.roles, "planner": planner}}
    names = ("sa", "sa_mv", "ma", "debate")
    named = replace(parsed.eval, systems=names, single_agent="generator", equal_compute=False)
    scored = evaluate(tmp_path, eval=named, **others)
    for name in ("sa", "sa_mv", "debate"):
        assert scored["systems"][name] == results["systems"][name]
        assert scored["described"][name]["roles"] == ["generator"]
    assert scored["systems"]["ma"]["tokens"] != scored["systems"]["sa"]["tokens"]
    rows = shards.read_one(tmp_path / "eval" / "predictions.parquet")
    assert {(row["system"], row["role"]) for row in rows} == {
        ("sa", "generator"),
        ("ma", "planner"),
    }
    first = evaluate(tmp_path, eval=replace(named, single_agent="", systems=("sa",)), **others)
    assert first["systems"]["sa"] == scored["systems"]["ma"], "by default it is the first role"


def test_a_greedy_system_takes_the_likeliest_token_each_time(stage):
    evaluate, workdir, parsed = stage
    scored = evaluate(eval=replace(parsed.eval, systems=("ma", "ma_greedy")))
    assert scored["described"]["ma_greedy"]["decoding"] == "greedy"
    assert scored["systems"]["ma_greedy"]["tokens"] != scored["systems"]["ma"]["tokens"]
    rows = list(shards.read(workdir / "eval" / "base" / "greedy"))
    assert len(rows) == 3 * len(QUESTIONS)
    model = small.model(scale=4.0)
    for row in rows:
        prompt, written = row["prompt_token_ids"], row["completion_token_ids"]
        tokens = np.full(512, -1)
        tokens[: len(prompt) + len(written)] = prompt + written
        logps = small.full_pass(model.config, model.params, tokens, None)
        likeliest = np.argmax(logps, axis=-1)[len(prompt) - 1 :][: len(written)]
        assert likeliest.tolist() == written


def test_votes_at_equal_compute_are_outcomes_beside_the_others(stage):
    evaluate, workdir, _ = stage
    results = evaluate()  # of all systems, whatever the tests before asked for
    rows = shards.read_one(workdir / "eval" / "outcomes.parquet")
    for voter in ("sa", "generator"):
        for name in (f"{voter}_equal", f"{voter}_equal_written"):
            assert sum(row["system"] == name for row in rows) == len(QUESTIONS)
            assert results["described"][name]["votes"] > 1
            assert name not in results["systems"]


def test_the_development_split_has_samples_of_its_own(stage, tmp_path):
    """Both splits are evaluated in one work directory, and the results say which they are of."""
    evaluate, _, settings = stage
    few = replace(settings.eval, systems=("sa",), critiques=False, equal_compute=False)
    scored = evaluate(tmp_path, eval=replace(few, split="development"))
    assert scored["split"] == {"name": "development", "n": 4}
    assert not (tmp_path / "eval" / "base").exists()
    again = evaluate(tmp_path, eval=few)
    assert again["split"] == {"name": "test", "n": 4}
    assert {path.name for path in (tmp_path / "eval").iterdir() if path.is_dir()} == {
        "base", "development"
    }  # fmt: skip
    assert again["systems"] == scored["systems"], "the same questions here"


def test_verdicts_are_counted_where_no_critique_is_changed(stage, results):
    """The texts are read for them; a critique of its own is taken for the word that accepts."""
    evaluate, workdir, settings = stage
    texts = [
        row["completion"]
        for path in shards.paths(workdir / "eval" / "base")
        for row in shards.read_one(path, ["role", "completion"])
        if row["role"] == "verifier"
    ]
    marked = replace(settings.credit, verdict=(max(texts, key=len), "never said"))
    few = replace(settings.eval, systems=("ma",), critiques=False, equal_compute=False)
    counts = evaluate(credit=marked, eval=few)["verdicts"]["ma"]["verifier"]
    assert counts["accepted_right"] + counts["accepted_wrong"] >= 1
    assert sum(n for name, n in counts.items() if name != "auroc") == len(texts)
