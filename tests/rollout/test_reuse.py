"""Trees of another run put to other uses equal the trees that would have been grown."""

import json
import shutil
from pathlib import Path

import pytest
import small
from recipes import change, good

from malt_jax import credit, tasks
from malt_jax.recipe import parse
from malt_jax.rollout import driver, records, reuse, roles
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.runtime import mesh
from malt_jax.sampler import Sampler, Sampling, Work
from malt_jax.types import Question
from malt_jax.workdir import inputs, run_record, shards

BASE = {
    "base": "m",
    "base_hash": "sha256:x",
    "tokenizer_hash": "sha256:t",
    "base_facts": {"stop_ids": [2]},
}
QUESTIONS = [Question(f"q{i}", f"{i}+{i}", str(2 * i)) for i in range(4)]


def config(workdir: Path, **changes) -> dict:
    rows_now = good()
    for role, length in (("generator", 10), ("verifier", 8), ("refiner", 9)):
        change(rows_now, f"roles.{role}.max_new_tokens", length)
    changes = {"workdir": str(workdir), "model.path": "m", **changes}
    for key, value in changes.items():
        change(rows_now, key.replace("__", "."), value)
    return rows_now


def grown(given: dict) -> list[dict]:
    """The rows of the trees that these settings grow."""
    parsed = parse(given)
    model, tokenizer = small.model(scale=4.0), small.tokenizer()
    sampler = Sampler(
        model.config, model.params, mesh.make(), 12, tokenizer.stop_ids, tokenizer.pad_id
    )
    task = tasks.get("arithmetic")
    chain = roles.chain(parsed)
    team = Team(sampler, tokenizer, chain, {}, task, Sampling(1.0), parsed.seed, "collect")
    trees = driver.grow(full_tree(team), QUESTIONS, lambda nodes: None, Work())
    by_question = {rows[0]["question_id"]: rows for rows in trees}  # they end in any order
    return [row for question in QUESTIONS for row in by_question[question.id]]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A run with whole trees of branching 3, some leaves of which are right by decree."""
    path = tmp_path_factory.mktemp("source")
    given = config(path)
    rows = grown(given)
    for i, row in enumerate(rows):
        if row["status"]:
            row["status"] = "correct" if i % 3 else "wrong"
            row["score"] = float(i % 3 > 0)
    shards.write(path / "trees" / "shard-00000.parquet", rows, records.SCHEMA)
    record = {"config": json.loads(json.dumps(given)), **BASE}
    (path / "config.json").write_text(json.dumps(record))
    (path / "data.json").write_text(json.dumps({"train": {"kept": len(QUESTIONS)}}))
    return path


def reused(source: Path, workdir: Path, **changes) -> list[dict]:
    """The rows with what they are worth under the settings of the run that reuses them."""
    given = config(workdir, trees=str(source), **changes)
    parsed = parse(given)
    reuse.run(workdir, parsed, given, BASE)
    return credit.assign(list(shards.read(workdir / "trees")), parsed.credit, parsed.seed)


def test_fewer_branches_are_the_tree_that_would_have_grown(source, tmp_path):
    fewer = {f"roles.{role}.branching": 2 for role in ("generator", "verifier", "refiner")}
    rows_now = reused(source, tmp_path, **fewer)
    expected = grown(config(tmp_path, **fewer))
    samples = ("completion_token_ids", "prompt_token_ids", "behaviour_logprobs", "policy")
    for key in ("question_id", "role", "node", "parent", "path", *samples):
        assert [row[key] for row in rows_now] == [row[key] for row in expected], key
    leaves = [row for row in rows_now if row["role"] == "refiner"]
    assert all(row["reward"] == float(row["status"] == "correct") for row in leaves)
    for critique in (row for row in rows_now if row["role"] == "verifier"):
        family = critique["question_id"], critique["path"]
        below = [r["reward"] for r in leaves if (r["question_id"], r["path"][:-1]) == family]
        assert critique["value"] == pytest.approx(sum(below) / 2)


def test_another_threshold_changes_labels_alone(source, tmp_path):
    before = reused(source, tmp_path / "before")
    rows_now = reused(source, tmp_path, **{"credit.threshold": 0.7})
    assert [row["value"] for row in rows_now] == [row["value"] for row in before]
    assert [row["label"] for row in rows_now] == [row["value"] > 0.7 for row in before]
    assert any(a["label"] != b["label"] for a, b in zip(rows_now, before, strict=True))


def test_shuffled_rewards_keep_samples_and_verdicts(source, tmp_path):
    before = reused(source, tmp_path / "before")
    rows_now = reused(source, tmp_path, **{"credit.shuffle_rewards": True})
    assert [row["status"] for row in rows_now] == [row["status"] for row in before]
    rewards = [[row["reward"] for row in rows if row["reward"] is not None]
               for rows in (before, rows_now)]  # fmt: skip
    assert sorted(rewards[0]) == sorted(rewards[1])
    assert rewards[0] != rewards[1]


def test_a_chain_of_one_is_graded_by_its_own_answers(source, tmp_path):
    """STaR: the generator's value is whether its own answer is right, not its refiners'."""
    rows_now = reused(source, tmp_path, chain=("generator",))
    assert [len(row["path"]) for row in rows_now] == [1] * 12
    assert all(row["value"] == float(row["status"] == "correct") for row in rows_now)
    assert {row["label"] for row in rows_now} == {True, False}


def test_a_second_run_writes_nothing(source, tmp_path):
    reused(source, tmp_path)
    (file,) = (tmp_path / "trees").glob("shard-*")
    before = file.stat().st_mtime_ns
    reused(source, tmp_path)
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample.temperature": 0.5}, r"config.sample.temperature: 1.0 there, 0.5 now"),
        ({"roles.verifier.prompt": "Look: {question}"}, r"config.roles.verifier.prompt: 'Check"),
        ({"roles.generator.branching": 4}, r"config.roles.generator.branching: only 3 there"),
        ({"chain": ("generator", "refiner"), "roles.refiner.prompt": "{question}"}, "beginning"),
        ({"chain": ("generator", "verifier")}, "ends with 'verifier', whose samples"),
        ({"seed": 1}, r"config.seed: 0 there, 1 now"),
        ({"data.skip_questions": 4}, r"config.data.skip_questions: 0 there, 4 now"),
    ],
)
def test_what_needs_other_samples_is_refused_by_name(source, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        reused(source, tmp_path, **changes)
    assert not list(tmp_path.rglob("*.parquet"))


def test_inputs_that_moved_are_the_same_and_a_base_that_stops_elsewhere_is_not(source, tmp_path):
    """Paths were compared as they were spelt, and of the base its weights alone."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    moved, other = tmp_path / "moved.jsonl", tmp_path / "source"
    shutil.copytree(source, other)
    record = json.loads((other / "config.json").read_text())
    record["config"]["data"]["train"] = str(rows)
    record["inputs"] = inputs.digests(run_record.flat(record["config"]))
    (other / "config.json").write_text(json.dumps(record))
    rows.rename(moved)
    assert reused(other, tmp_path / "run", data__train=str(moved), model__path="n")
    moved.write_text("[]")
    with pytest.raises(ValueError, match=r"config.data.train: .*rows.jsonl' there, .*moved"):
        reused(other, tmp_path / "changed", data__train=str(moved))
    given = config(tmp_path, trees=str(source))
    with pytest.raises(ValueError, match=r"the base: stop_ids \[2\] there and \[2, 3\] now"):
        reuse.run(tmp_path, parse(given), given, BASE | {"base_facts": {"stop_ids": [2, 3]}})


def test_trees_that_are_not_whole_are_refused(source, tmp_path):
    given = config(tmp_path, trees=str(source))
    parsed = parse(given)
    with pytest.raises(ValueError, match=r"the base model: m \(sha256:x.* there, n \(sha256:y"):
        reuse.run(tmp_path, parsed, given, BASE | {"base": "n", "base_hash": "sha256:y"})
    with pytest.raises(ValueError, match=r"nowhere holds no run; run its --stage=collect first"):
        reused(tmp_path / "nowhere", tmp_path)
    other = tmp_path / "other"
    for file in (p for p in source.rglob("*") if p.is_file()):
        (other / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (other / file.relative_to(source)).write_bytes(file.read_bytes())
    (other / "data.json").write_text(json.dumps({"train": {"kept": 5}}))
    with pytest.raises(ValueError, match=r"holds 4 of 5 trees"):
        reused(other, tmp_path)
    rows = [row for row in shards.read(source / "trees") if row["path"] != [1, 2, 0]]
    shards.write(other / "trees" / "shard-00000.parquet", rows, records.SCHEMA)
    (other / "data.json").write_text(json.dumps({"train": {"kept": 4}}))
    with pytest.raises(ValueError, match=r"shard-00000.parquet: the tree of q0 is not whole"):
        reused(other, tmp_path)
