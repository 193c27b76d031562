"""A strategy that the package knows nothing of, through driver, shards and data sets."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from telling import telling
from trees import QUESTIONS, ROLES, team, trees
from until_agreed import MOST, until_agreed

from malt_jax import credit, grading
from malt_jax.config.credit import CreditSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.learn import datasets
from malt_jax.rollout import driver, records
from malt_jax.rollout.roles import Role
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.tree import Strategy
from malt_jax.sampler import Work
from malt_jax.workdir import shards

READER = Role("reader", "{question}: {generator}", ("question", "generator"), 1, 9)
CREDIT = CreditSettings(0.5, False, 3, 2)
ANSWERS = {  # what each question's generator says, time after time; then its reader
    "q0": (["0", "0"], "0"),
    "q1": (["1", "2", "3", "2"], "3"),
    "q2": (["4", "5", "6", "7", "8"], "4"),
    "q3": (["6", "7", "6"], "6"),
    "q4": (["7", "8", "8"], "8"),
}


def say(question: str, path: tuple[int, ...]) -> str:
    generator, reader = ANSWERS[question]
    return f"Final Answer: {generator[path[0]] if len(path) == 1 else reader}"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The work directory of a toy run."""
    workdir = tmp_path_factory.mktemp("run")
    strategy = until_agreed(telling(team(), say), READER)
    driver.store(workdir / "trees", strategy, QUESTIONS, 2, "test")
    return workdir


def test_trees_as_large_as_it_took(stored):
    rows = list(shards.read(stored / "trees"))
    assert len(shards.paths(stored / "trees")) == 3
    by_question = {name: [r for r in rows if r["question_id"] == name] for name in ANSWERS}
    assert [len(tree) for tree in by_question.values()] == [3, 5, MOST + 1, 4, 4]
    q1 = by_question["q1"]
    assert [(r["node"], r["parent"], r["path"], r["role"]) for r in q1] == [
        (0, -1, [0], "generator"),
        (1, -1, [1], "generator"),
        (2, -1, [2], "generator"),
        (3, -1, [3], "generator"),
        (4, 1, [1, 0], "reader"),
    ]
    assert [r["answer"] for r in q1] == ["1", "2", "3", "2", "3"]
    assert q1[-1]["prompt"].endswith("1+1: Final Answer<|end|><|assistant|>")  # cut to 12 tokens
    assert [r["score"] for r in by_question["q2"]] == [1, 0, 0, 0, 0, 1]


def test_worth_and_data_sets_of_it(stored):
    class Chain:
        chain, credit, seed = ("generator", "reader"), CREDIT, 0
        rounds = RoundsSettings()

    rows = credit.assign(records.read(stored / "trees" / "shard-00000.parquet"), CREDIT, 0)
    q1 = [row for row in rows if row["question_id"] == "q1"]
    # The second answer is right and worth what the reader made of it.
    assert [row["value"] for row in q1] == [0, 0, 0, 1, 0]
    counts = datasets.run(stored, Chain())
    # Both right: q0's first was read rightly and its second is right itself.
    assert counts["generator"]["nodes"] == 2 + 4 + 5 + 3 + 3
    assert counts["generator"]["parents"] == 5
    assert counts["reader"]["sft_rows"] == 4


def test_its_samples_depend_on_their_path_alone():
    """The real sampler: the first answers are those of the full tree's generator."""
    strategy = until_agreed(team(), READER)
    grown = {tree.question.id: tree.nodes for tree in driver.expand(strategy, QUESTIONS)}
    for name, levels in trees(team()).items():
        for node in levels[0]:
            same = [other for other in grown[name] if other.path == node.path]
            assert all(other.completion.tokens == node.completion.tokens for other in same)
    assert all(len(nodes) == MOST + 1 for nodes in grown.values())  # two never agreed


def test_a_strategy_that_asks_nothing_is_named():
    silent = Strategy(team(), lambda tree, fresh: (), 1)
    with pytest.raises(ValueError, match="question 'q0': the strategy asks nothing of it"):
        list(driver.expand(silent, QUESTIONS))


def test_answers_are_graded_beside_the_sampler(monkeypatch):
    """The first verdict may take as long as it likes: sampling goes on, and waits at the end."""
    real, drawn, release = grading.submit, [0], threading.Event()

    def progress(nodes):
        drawn[0] += nodes
        if drawn[0] == 5 * 27:
            release.set()

    def late(task, samples):
        assert release.wait(60)
        return real(task, samples).result()

    strategy = full_tree(telling(team(), lambda name, path: "Final Answer: 2"))
    with ThreadPoolExecutor(1) as beside:
        monkeypatch.setattr(grading, "submit", lambda *asked: beside.submit(late, *asked))
        trees = list(driver.grow(strategy, QUESTIONS, progress, Work()))
    right = [row for rows in trees for row in rows if row["status"] == "correct"]
    assert {row["question_id"] for row in right} == {"q1"}
    assert len(right) == 3 + 18


def test_a_bad_reference_ends_the_run_with_its_message(monkeypatch):
    def refused(task, samples):
        graded = Future()
        graded.set_exception(ValueError("reference answer: '?' is no number"))
        return graded

    monkeypatch.setattr(grading, "submit", refused)
    strategy = full_tree(telling(team(), lambda name, path: "x"))
    with pytest.raises(ValueError, match="is no number"):
        list(driver.grow(strategy, QUESTIONS, lambda nodes: None, Work()))


def test_policies_tell_adapters_and_bases_apart():
    import jax

    from malt_jax.models import lora
    from malt_jax.rollout.team import policy

    config, base = team().sampler.config, f"sha256:{'0123456789abcdef' * 4}"
    adapter = lora.init(config, jax.random.key(0), rank=2, alpha=4.0)
    other = lora.init(config, jax.random.key(1), rank=2, alpha=4.0)
    assert policy(base, None) == "sha256:0123456789abcdef"
    hashes = [policy(base, adapter), policy(base, other), policy("sha256:0", adapter)]
    hashes += [policy(base, replace(adapter, scale=1.0)), policy(base, None)]
    assert len(set(hashes)) == 5
    assert hashes[0] == policy(base, jax.tree.map(lambda x: x + 0, adapter))
    assert {len(name) for name in hashes} == {23}
    playing = replace(team(), base=base, adapters={"verifier": adapter})
    assert list(playing.policies) == [role.name for role in ROLES]
    assert playing.policies["generator"] == policy(base, None) != playing.policies["verifier"]
