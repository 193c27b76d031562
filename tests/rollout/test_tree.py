"""Expansion, random keys, grading and values of whole trees."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from telling import telling
from trees import QUESTIONS, ROLES, store, team, trees

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.models import lora
from malt_jax.rollout import driver, records
from malt_jax.rollout.keys import node_keys
from malt_jax.rollout.strategies.full_tree import full_tree, nodes_per_question
from malt_jax.runtime import process
from malt_jax.sampler import Sampler, Work
from malt_jax.types import Question
from malt_jax.workdir import growth, shards

CREDIT = CreditSettings(0.5, False, 3, 2)


def by_path(grown):
    """Tokens and log-probabilities of all nodes."""
    return {
        (name, node.path): (node.completion.tokens, node.completion.logps.tolist())
        for name, levels in grown.items()
        for nodes in levels
        for node in nodes
    }


def test_a_tree_is_dense_and_in_order():
    grown = trees(team())
    assert sorted(grown) == [question.id for question in QUESTIONS]
    levels = grown["q3"]
    assert [len(nodes) for nodes in levels] == [3, 6, 18]
    for depth, branching in ((1, 2), (2, 3)):
        for i, node in enumerate(levels[depth]):
            parent = levels[depth - 1][i // branching]
            assert (node.parent, node.path[:-1]) == (parent, parent.path)
            assert node.path[-1] == i % branching
    decode = team().tokenizer.decode
    leaf, critique, solution = levels[2][-1], levels[1][-1], levels[0][-1]
    shown = decode(leaf.prompt)
    assert shown == f"3+3 {solution.text} {critique.text}"


def test_a_nodes_tokens_depend_on_neither_order_nor_company():
    """Shuffled questions, one question alone and another batch size give the same trees, bit by
    bit."""
    whole = by_path(trees(team()))
    shuffled = by_path(trees(team(), [QUESTIONS[i] for i in (3, 0, 4, 2, 1)]))
    alone = by_path(trees(team(rows=24), QUESTIONS[2:3]))
    assert whole == shuffled
    assert alone == {key: tokens for key, tokens in whole.items() if key[0] == "q2"}
    other = by_path(trees(replace(team(), random_stream="evaluate")))
    assert sum(whole[key] == other[key] for key in whole) < len(whole) / 10


def test_no_prompt_token_is_computed_twice():
    """The counters are exact: every distinct prefix of a prompt once (a role's fixed instruction
    once a run, what siblings' prompts share once), every drawn token once."""
    work = Work()
    grown = list(driver.expand(full_tree(team()), QUESTIONS, work=work))
    nodes = [node for tree in grown for node in tree.nodes]
    prompts = {tuple(node.prompt) for node in nodes}
    parents = {
        (tree.question.id, node.path[:-1]): len(node.prompt) - 1
        for tree in grown
        for node in tree.nodes
    }
    prefixes = {prompt[:n] for prompt in prompts for n in range(1, len(prompt))}
    assert work.prefilled == len(prefixes)
    assert work.prefilled + work.reused == sum(parents.values())
    assert work.reused > work.prefilled / 2
    assert work.decoded == sum(len(node.completion.tokens) for node in nodes)
    assert work.decoded <= work.decode_slots
    assert work.occupancy > 0.5


def test_roles_decode_side_by_side():
    """A verifier starts while generators of later questions still run, and each role samples under
    its own adapter (level by level, the first verifier would wait for the last generator)."""
    playing, order = team(), []
    adapters = {
        role.name: jax.tree.map(
            lambda x, i=i: x + 0.2 * jax.random.normal(jax.random.key(i), x.shape),
            lora.init(playing.sampler.config, jax.random.key(i), rank=2, alpha=4.0),
        )
        for i, role in enumerate(ROLES)
    }
    real = Sampler.run

    def watched(self, *arguments, **named):
        for request, completions in real(self, *arguments, **named):
            order.append((request.adapter, len(completions)))
            yield request, completions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "run", watched)
        mixed = by_path(trees(replace(playing, adapters=adapters)))
    depths = [depth for depth, _ in order]
    assert depths != sorted(depths)
    alone = by_path(trees(replace(playing, adapters={"generator": adapters["generator"]})))
    assert all(alone[key] == mixed[key] for key in mixed if len(key[1]) == 1)
    plain = by_path(trees(playing))
    for depth, role in enumerate(ROLES):
        partly = by_path(trees(replace(playing, adapters={role.name: adapters[role.name]})))
        changed = [len(path) for name, path in plain if plain[name, path] != partly[name, path]]
        assert min(changed) == depth + 1


def test_trees_are_finished_in_the_order_they_were_begun():
    """So that a shard is whole early. What was begun last used to go first: the first of these
    trees was whole after 159 of 324 nodes."""
    drawn, whole = [0], []
    questions = [Question(f"q{i}", f"{i}+{i}", str(2 * i)) for i in range(12)]

    def hear(_, nodes):
        drawn.append(len(nodes))

    for tree in driver.expand(full_tree(team()), questions, hear):
        whole.append((tree.question.id, sum(drawn)))
    assert [name for name, _ in whole] == [question.id for question in questions]
    assert whole[0][1] < 2 * 27


def test_keys_are_a_function_of_seed_stream_question_and_path():
    def key(seed=0, stream="a", question="q", path=(1, 2)):
        return node_keys(seed, stream, question, [(*path, child) for child in range(3)])

    assert (key() == key()).all()
    for other in (
        key(seed=1),
        key(stream="b"),
        key(question="r"),
        key(path=(2, 1)),
        key(path=(1,)),
    ):
        assert (key() != other).any(axis=1).all()
    many = np.array([key(question=f"q{i}", path=(i, 2)) for i in range(200)])
    assert len({tuple(k) for k in many.reshape(-1, 2)}) == 600
    assert (node_keys(0, "a", "q7", [(7, 2, 1), (7, 2, 0)]) == many[7][[1, 0]]).all()


def test_keys_are_those_that_earlier_versions_drew_with():
    """Samples on disk are continued with these."""
    first = node_keys(7, "evaluate", "q0", [(1, 2), (0, 0)])
    assert first.tolist() == [[1256219647, 4211439175], [2773401618, 3071955134]]
    assert node_keys(0, "collect", "q1", [(2,)]).tolist() == [[4280784127, 1671864857]]


def planted(leaves: list[str], branching=(2, 2, 2)) -> list[dict]:
    """The rows of one question's tree with given leaf completions."""
    roles = tuple(replace(r, branching=n) for r, n in zip(ROLES, branching, strict=True))

    def say(_, path: tuple[int, ...]) -> str:
        return (
            leaves[np.ravel_multi_index(path, branching)] if len(path) == 3 else "Final Answer: 3"
        )

    playing = telling(replace(team(), roles=roles), say)
    questions, nothing = [Question("q", "1+1", "2")], lambda nodes: None
    (rows,) = driver.grow(full_tree(playing), questions, nothing, Work())
    return rows


def test_values_of_a_planted_tree():
    """Leaves 1 1 | 1 0 || 0 0 | 1 0 under two solutions of two critiques each."""
    right, wrong = "so Final Answer: 2", "Final Answer: 3"
    leaves = [right, right, right, wrong, wrong, wrong, right, wrong]
    rows = credit.assign(planted(leaves), CREDIT, 0)
    by_place = {(row["role"], tuple(row["path"])): row for row in rows}
    assert len(rows) == 2 + 4 + 8
    assert by_place["generator", (0,)]["value"] == 0.75
    assert by_place["generator", (1,)]["value"] == 0.25
    assert [by_place["verifier", (i, j)]["value"] for i in (0, 1) for j in (0, 1)] == [
        1,
        0.5,
        0,
        0.5,
    ]
    assert by_place["verifier", (0, 0)]["label"]
    assert not by_place["verifier", (0, 1)]["label"]  # one half is not above one half
    assert by_place["generator", (0,)]["status"] == "wrong"
    assert by_place["verifier", (0, 0)]["status"] == ""
    assert by_place["refiner", (0, 0, 0)]["answer"] == "2"
    assert [row["reward"] for row in rows if row["role"] == "refiner"] == [1, 1, 1, 0, 0, 0, 1, 0]
    assert by_place["verifier", (0, 0)]["reward"] is None


def test_shuffled_rewards_keep_the_true_status():
    rows = planted(["Final Answer: 2"] * 3 + ["Final Answer: 3"] * 5)
    plain = credit.assign(rows, CREDIT, 0)
    mixed = credit.assign(rows, replace(CREDIT, shuffle_rewards=True), 0)
    assert [row["status"] for row in plain] == [row["status"] for row in mixed]
    assert sum(row["reward"] or 0 for row in mixed) == 3
    assert [row["reward"] for row in plain] != [row["reward"] for row in mixed]


def test_a_killed_collection_continues(tmp_path):
    """Only what no committed shard holds is sampled again, and the trees equal an unbroken
    run's."""
    calls, strategy = [], full_tree(team())
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "broken", strategy, calls, 2)
    (tmp_path / "broken" / "shard-00007.parquet.tmp").write_bytes(b"half a shard")
    store(tmp_path / "broken", strategy, calls)
    assert calls == [["q0", "q1", "q2", "q3", "q4"], ["q2", "q3", "q4"]]
    store(tmp_path / "whole", strategy, calls)
    broken, whole = (
        [list(shards.read_one(path)) for path in shards.paths(tmp_path / name)]
        for name in ("broken", "whole")
    )
    assert broken == whole
    assert [len(rows) for rows in whole] == [n * (3 + 6 + 18) for n in (2, 2, 1)]
    before = len(calls)
    store(tmp_path / "whole", strategy, calls)
    assert len(calls) == before


def test_a_stop_keeps_the_trees_that_are_whole(tmp_path, monkeypatch):
    """A stop before the first shard lost all of it. What is whole by then is not sampled again, and
    the shard becomes the one of a run that was never stopped."""
    asked, drawn = [], []

    def heed():
        if sum(drawn) > 3 * 27:
            drawn.clear()
            raise process.Stopped("SIGINT")

    def grow(directory):
        def grow_rows(pending, progress):
            asked.append([question.id for question in pending])
            return driver.grow(full_tree(team()), pending, drawn.append, Work())

        sizes = {"per_shard": 16, "nodes_per_question": 27}
        growth.grow(directory, QUESTIONS, grow_rows, records.SCHEMA, **sizes, title="test")

    grow(tmp_path / "whole")
    drawn.clear()
    monkeypatch.setattr(process, "heed", heed)
    with pytest.raises(process.Stopped):
        grow(tmp_path / "stopped")
    (kept,) = (tmp_path / "stopped").glob("partial-*.parquet")
    trees = {row["question_id"] for row in shards.read_one(kept)}
    assert 0 < len(trees) < 5
    monkeypatch.undo()
    grow(tmp_path / "stopped")
    assert asked[-1] == [question.id for question in QUESTIONS if question.id not in trees]
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
             for name in ("whole", "stopped")]  # fmt: skip
    assert files[0] == files[1]


def test_nodes_per_question():
    assert nodes_per_question((3, 3, 3)) == 39
    assert nodes_per_question((3, 1)) == 6
