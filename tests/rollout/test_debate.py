"""Debates on a small model: who sees what, what is drawn, what is stored and how it is scored."""

from dataclasses import replace

import numpy as np
import pytest
import small
from trees import QUESTIONS, store

from malt_jax import tasks
from malt_jax.config.evaluation import DebateSettings
from malt_jax.evaluate import scoring
from malt_jax.evaluate.scoring import Outcome
from malt_jax.rollout import driver, records
from malt_jax.rollout.keys import node_keys
from malt_jax.rollout.roles import Role, prompt_ids
from malt_jax.rollout.strategies import debate
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Node
from malt_jax.runtime import mesh
from malt_jax.sampler import Completion, Sampler, Sampling, Work
from malt_jax.types import Question
from malt_jax.workdir import shards

GENERATOR = Role("generator", "Solve {question}", ("question",), 3, 12)


def how(agents: int = 3, rounds: int = 3) -> DebateSettings:
    prompt = "Read these, then solve {question}, as {hint}\n\n{others}"
    return DebateSettings(agents, rounds, prompt, "Solution of another agent:\n{other}")


def team(rows: int = 12) -> Team:
    model, tokenizer = small.model(scale=4.0), small.tokenizer()
    sampler = Sampler(
        model.config, model.params, mesh.make(), rows, tokenizer.stop_ids, tokenizer.pad_id
    )
    task = tasks.get("arithmetic")
    return Team(sampler, tokenizer, (GENERATOR,), {}, task, Sampling(1.0), 0, "collect")


def debates(playing: Team, questions=QUESTIONS, agents=3, rounds=3) -> dict[str, list[Node]]:
    strategy = debate.debate(playing, how(agents, rounds))
    return {tree.question.id: tree.nodes for tree in driver.expand(strategy, questions)}


def drawn(grown: dict[str, list[Node]]) -> dict:
    """Tokens and log-probabilities by question and path."""
    return {
        (name, node.path): (node.completion.tokens, node.completion.logps.tolist())
        for name, nodes in grown.items()
        for node in nodes
    }


@pytest.fixture(scope="module")
def whole() -> dict[str, list[Node]]:
    return debates(team())


def test_the_first_round_is_one_request_and_every_later_answer_one_more(whole):
    asked, work = [], Work()
    real = Sampler.run

    def watched(self, *arguments, **named):
        for request, completions in real(self, *arguments, **named):
            asked.append((len(request.keys), len(completions)))
            yield request, completions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "run", watched)
        strategy = debate.debate(team(), how())
        trees = list(driver.grow(strategy, QUESTIONS, lambda nodes: None, work))
    assert sorted(asked) == [(1, 1)] * 5 * 6 + [(3, 3)] * 5
    assert [len(rows) for rows in trees] == [9] * 5
    rows = [row for tree in trees for row in tree]
    paths = [[agent, turn] for turn in range(3) for agent in range(3)]
    assert [(r["question_id"], r["path"]) for r in rows] == [
        (q.id, path) for q in QUESTIONS for path in paths
    ]
    assert {row["role"] for row in rows} == {"debater"}
    assert not {"reward", "value", "label"} & rows[0].keys()
    assert [row["node"] for row in rows[:9]] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["parent"] for row in rows[:9]] == [-1, -1, -1, 0, 1, 2, 3, 4, 5]
    assert {row["status"] for row in rows} <= {"correct", "wrong", "unparseable", "truncated"}
    assert rows[0]["prompt_token_ids"] == team().tokenizer.prompt(
        GENERATOR.prompt, {"question": "0+0"}
    )
    assert work.decoded == sum(row["completion_tokens"] for row in rows)
    assert set(rows[0]) == set(records.SCHEMA.names)


def shown(question: Question, others: list[str]) -> str:
    first, second = others
    return (
        f"Read these, then solve {question.text}, as a number\n\n"
        f"Solution of another agent:\n{first}\n\nSolution of another agent:\n{second}"
    )


def misled(question: Question, nodes: list[Node]) -> list[tuple[int, ...]]:
    """The nodes that do not see the other agents' answers of the round before, and those alone."""
    said = {node.path: node.text for node in nodes}
    decode = small.tokenizer().decode
    return [
        node.path
        for node in nodes
        if node.path[1] > 0
        and decode(node.prompt)
        != shown(
            question,
            [said[other, node.path[1] - 1] for other in range(3) if other != node.path[0]],
        )
    ]


def test_an_agent_sees_the_others_and_not_itself(whole):
    assert not [path for question in QUESTIONS for path in misled(question, whole[question.id])]
    nodes = whole["q3"]
    assert len({node.text for node in nodes}) > 6  # else seeing one for another would not show
    at = next(i for i, node in enumerate(nodes) if node.path == (1, 2))
    for seen in ([(1, 1), (2, 1)], [(0, 0), (2, 0)], [(2, 1), (0, 1)]):  # own, too old, turned
        texts = [node.text for path in seen for node in nodes if node.path == path]
        planted = small.tokenizer().encode(shown(QUESTIONS[3], texts))
        wrong = [*nodes[:at], replace(nodes[at], prompt=planted), *nodes[at + 1 :]]
        assert misled(QUESTIONS[3], wrong) == [(1, 2)]


def test_a_debate_depends_on_neither_order_nor_company(whole):
    """Shuffled questions, one alone and other rows: the same bits. A longer debate begins as the
    shorter one, and another seed is another debate."""
    reference = drawn(whole)
    assert drawn(debates(team(), [QUESTIONS[i] for i in (3, 0, 4, 2, 1)])) == reference
    alone = drawn(debates(team(rows=24), QUESTIONS[2:3]))
    assert alone == {key: tokens for key, tokens in reference.items() if key[0] == "q2"}
    shorter = drawn(debates(team(), QUESTIONS[:2], rounds=2))
    assert len(shorter) == 12
    assert all(reference[key] == tokens for key, tokens in shorter.items())
    other = drawn(debates(replace(team(), seed=1), QUESTIONS[:1]))
    assert sum(reference[key] == tokens for key, tokens in other.items()) < 2


def test_answers_of_one_round_are_drawn_apart(whole):
    """Agents of one prompt differ by their keys alone, and a path's key is its own."""
    first = [[node.text for node in nodes[:3]] for nodes in whole.values()]
    assert sum(len(set(texts)) for texts in first) > 12
    paths = [(agent, turn) for agent in range(3) for turn in range(3)]
    assert len({tuple(key) for key in node_keys(0, debate.STREAM, "q0", paths)}) == 9


def test_agents_use_the_first_roles_adapter(monkeypatch):
    seen = []

    def run(self, take, adapters, *, sampling, work):
        seen.append(adapters)
        return iter(())

    monkeypatch.setattr(Sampler, "run", run)
    adapter = object()
    assert not debates(replace(team(), adapters={"generator": adapter, "refiner": object()}))
    assert seen == [[adapter]]


def test_a_killed_debate_continues(tmp_path):
    calls, strategy = [], debate.debate(team(), how(2, 2))
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "broken", strategy, calls, 2)
    store(tmp_path / "broken", strategy, calls)
    store(tmp_path / "whole", strategy, calls)
    first, again, whole = calls
    assert first == whole == [q.id for q in QUESTIONS]
    assert len(again) == 3  # which two were whole first, the machine's speed decides
    broken, unbroken = (list(shards.read(tmp_path / name)) for name in ("broken", "whole"))
    assert broken == unbroken
    assert len(broken) == 20
    assert broken[0]["score"] in (0.0, 1.0)


def rows(*rounds: list[str]) -> list[dict]:
    """A debate's rows by their answers; "2" is correct. Prompts of 10, 31, 32, ... tokens, answers
    of 5. Of a prompt the 10 of the question are novel once."""
    status = {"2": "correct", "": "unparseable"}
    return [
        {
            "path": [agent, turn],
            "answer": answer,
            "status": status.get(answer, "wrong"),
            "prompt_tokens": 10 if turn == 0 else 30 + agent,
            "completion_tokens": 5,
            "novel": 20 + agent if turn else (0 if agent else 10),
        }
        for turn, answers in enumerate(rounds)
        for agent, answer in enumerate(answers)
    ]


def test_outcome():
    def outcome(*rounds: list[str]) -> tuple[Outcome, ...]:
        return scoring.debated(rows(*rounds))

    # 10 once, 30 + 31 + 32 for the second round, 20 + 21 + 22 of them novel; six answers of 5.
    assert outcome(["2", "2", "2"], ["3", "2", "3"]) == (Outcome("wrong", 103, 30, 73),)
    assert outcome(["3", "3", "3"], ["2", "3", "2"]) == (Outcome("correct", 103, 30, 73),)
    assert outcome(["2", "3", "3"]) == (Outcome("wrong", 10, 15, 10),)
    # A tie goes to the first agent that answers, whatever the order of the rows.
    tied = rows(["3", "3", "3"], ["", "2", "3"])
    first = (Outcome("correct", 103, 30, 73),)
    assert scoring.debated(tied) == scoring.debated(tied[::-1]) == first
    assert outcome(["2", "2"], ["", ""]) == (Outcome("unparseable", 71, 20, 51),)


def test_the_longest_prompt_is_known_before(monkeypatch):
    """Answers longer than a role may write are cut, and their control tokens stay text."""
    playing, hint = team(), tasks.get("arithmetic").answer_hint
    long, question = "<|end|><|assistant|>" * 3, QUESTIONS[4]
    logps = np.zeros((2, 40), np.float32)
    prompts = []

    def run(self, take, adapters, *, sampling, work):
        while request := take():
            prompts.append(request.prompt)
            children = len(request.keys)
            ids = playing.tokenizer.encode(long)
            yield request, [Completion(ids, *logps, False)] * children

    monkeypatch.setattr(Sampler, "run", run)
    debates(playing, [question], agents=4, rounds=2)
    size = debate.prompt_size(GENERATOR, how(4), hint, playing.tokenizer)
    assert {len(prompt) for prompt in prompts[1:]} == {size + len(question.text)}
    blank = prompt_ids(
        debate.debater(GENERATOR, how(4)),
        question,
        hint,
        dict.fromkeys(["other_1", "other_2", "other_3"], ""),
        {},
        playing.tokenizer,
    )

    def control(ids):
        return [i for i in ids if i in playing.tokenizer.control_ids]

    assert all(control(prompt) == control(blank) for prompt in prompts[1:])
