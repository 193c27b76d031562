"""The last role on stored passes with its critique replaced: the control, the two treatments and
what they share."""

from dataclasses import replace

import jax
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from trees import QUESTIONS, store

from malt_jax import tasks
from malt_jax.models import lora
from malt_jax.rollout import driver
from malt_jax.rollout.roles import Role
from malt_jax.rollout.strategies.critiques import critiques, strangers
from malt_jax.rollout.strategies.full_tree import passes as chain_passes
from malt_jax.rollout.team import Team
from malt_jax.runtime import mesh
from malt_jax.sampler import Sampler, Sampling, Work
from malt_jax.workdir import shards

ROLES = (
    Role("generator", "Solve {question}", ("question",), 2, 8),
    Role("verifier", "Check {question}: {generator}", ("question", "generator"), 1, 8),
    Role(
        "refiner", "{question} {generator} {verifier}", ("question", "generator", "verifier"), 1, 9
    ),
)
OTHER = {"q0": "q2", "q1": "q3", "q2": "q4", "q3": "q0", "q4": "q1"}
PLACE = ("node", "parent")


@pytest.fixture(scope="module")
def team() -> Team:
    """A trained team: every role has an adapter of its own."""
    model, tokenizer = small.model(scale=4.0), small.tokenizer()
    sampler = Sampler(
        model.config, model.params, mesh.make(), 12, tokenizer.stop_ids, tokenizer.pad_id
    )
    adapters = {
        role.name: jax.tree.map(
            lambda x, i=i: x + 0.2 * jax.random.normal(jax.random.key(i), x.shape),
            lora.init(model.config, jax.random.key(i), rank=2, alpha=4.0),
        )
        for i, role in enumerate(ROLES)
    }
    task = tasks.get("arithmetic")
    return Team(sampler, tokenizer, ROLES, adapters, task, Sampling(1.0), 7, "collect")


@pytest.fixture(scope="module")
def passes(team: Team, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Two passes a question, drawn, stored and read as the evaluation does."""
    directory = tmp_path_factory.mktemp("eval")
    passing = replace(team, random_stream="evaluate")
    driver.store(directory, chain_passes(passing, 2), QUESTIONS, 2, "test")
    stored = {question.id: [[], []] for question in QUESTIONS}
    for row in shards.read(directory):
        stored[row["question_id"]][row["path"][0]].append(row)
    return stored


def again(team, passes, shown, questions=QUESTIONS) -> list[dict]:
    evaluating = replace(team, random_stream="evaluate")
    strategy = critiques(evaluating, passes, shown)
    grown = driver.grow(strategy, questions, lambda nodes: None, Work())
    trees = {rows[0]["question_id"]: rows for rows in grown}
    return [row for question in questions for row in trees[question.id]]


def test_the_own_critique_gives_the_stored_answer_bit_for_bit(team, passes):
    """Tokens, log-probability, verdict and path, though the pass ran beside other roles."""
    stored = [nodes[-1] for q in QUESTIONS for nodes in passes[q.id]]
    answers = again(team, passes, "own")
    assert len(answers) == 10
    for drawn, other in zip(answers, stored, strict=True):
        assert drawn["parent"] == -1
        assert {**drawn, **dict.fromkeys(PLACE)} == {**other, **dict.fromkeys(PLACE)}
    # A team of another seed, or without its adapter, is another team.
    wrong = [replace(team, seed=8), replace(team, adapters={})]
    for other_team in wrong:
        texts = [row["completion"] for row in again(other_team, passes, "own", QUESTIONS[:2])]
        assert texts != [row["completion"] for row in stored[:4]]


def strange(passes: dict, rows: list[dict]) -> list[tuple[str, int]]:
    """The answers whose prompt does not end with the critique of the question that `OTHER` names,
    in the same pass."""
    return [
        (row["question_id"], row["path"][0])
        for row in rows
        if small.tokenizer().decode(row["prompt_token_ids"])
        != " ".join(
            (
                row["question"],
                passes[row["question_id"]][row["path"][0]][0]["completion"],
                passes[OTHER[row["question_id"]]][row["path"][0]][1]["completion"],
            )
        )
    ]


def test_the_other_critique_is_never_of_the_own_question(team, passes):
    critics = {nodes[1]["completion"] for q in QUESTIONS for nodes in passes[q.id]}
    assert len(critics) > 6  # else one would pass for another
    answers = again(team, passes, "other")
    assert not strange(passes, answers)
    assert [row["path"] for row in answers] == [[0, 0, 0], [1, 0, 0]] * 5
    assert len(strange(passes, again(team, passes, "own"))) > 6  # the planted fault
    stored = [nodes[-1]["completion"] for q in QUESTIONS for nodes in passes[q.id]]
    assert [row["completion"] for row in answers] != stored


def test_what_differs_the_critique_alone_has_done(team, passes):
    """Where all critics said the same, the other's critique changes no bit: the random numbers and
    the rest of the prompt are the pass's own."""
    same = {
        name: [
            [first, {**critic, "completion": "so it is"}, last] for first, critic, last in stored
        ]
        for name, stored in passes.items()
    }
    assert again(team, same, "own") == again(team, same, "other")


def test_no_critique_is_an_empty_one(team, passes):
    for row in again(team, passes, "none"):
        solution = passes[row["question_id"]][row["path"][0]][0]["completion"]
        shown = small.tokenizer().decode(row["prompt_token_ids"])
        assert shown == f"{row['question']} {solution} "


def test_a_part_of_the_questions_gets_the_same_critiques(team, passes):
    """A resumed run has fewer questions to go, and the others' critiques come from all of them."""
    whole = again(team, passes, "other")
    assert again(team, passes, "other", QUESTIONS[3:]) == whole[6:]
    shuffled = again(team, passes, "other", QUESTIONS[::-1])
    assert sorted(shuffled, key=lambda row: (row["question_id"], row["path"])) == whole


def test_a_killed_run_continues(team, passes, tmp_path):
    strategy = critiques(replace(team, random_stream="evaluate"), passes, "other")
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path, strategy, [], 2)
    store(tmp_path, strategy, [])
    stored = list(shards.read(tmp_path))
    assert len(shards.paths(tmp_path)) == 3
    assert [row["completion_token_ids"] for row in stored] == [
        row["completion_token_ids"] for row in again(team, passes, "other")
    ]


@given(st.sets(st.text(max_size=4), min_size=2, max_size=40))
def test_strangers_are_a_derangement(ids):
    others = strangers(ids)
    assert set(others) == set(others.values()) == ids
    assert all(name != other for name, other in others.items())


def test_strangers_literally():
    assert strangers(reversed(list(OTHER))) == OTHER
    with pytest.raises(ValueError, match=r"config.data.eval_questions"):
        strangers(["q0"])


def test_in_a_chain_of_two_the_first_role_is_replaced(team, monkeypatch):
    prompts = []

    def run(self, take, adapters, *, sampling, work):
        assert adapters == [team.adapters["refiner"]]
        while request := take():
            (path,) = request.tag[1].paths
            prompts.append((small.tokenizer().decode(request.prompt), path))
        return iter(())

    monkeypatch.setattr(Sampler, "run", run)
    refiner = Role("refiner", "{question} {generator}", ("question", "generator"), 1, 9)
    short = replace(team, roles=(ROLES[0], refiner))
    stored = {
        question.id: [
            [
                {"role": "generator", "path": [i], "completion": f"{question.id} by {i}"},
                {"role": "refiner", "path": [i, 0], "completion": "unused"},
            ]
            for i in range(2)
        ]
        for question in QUESTIONS
    }
    list(driver.expand(critiques(short, stored, "other"), QUESTIONS[:1]))
    assert prompts == [("0+0 q2 by 0", (0, 0)), ("0+0 q2 by 1", (1, 0))]


def test_passes_and_chains_that_do_not_fit_are_refused(team, passes):
    with pytest.raises(ValueError, match=r"chain \['generator', 'verifier', 'refiner'\], not of"):
        again(replace(team, roles=(ROLES[1], ROLES[0], ROLES[2]), adapters={}), passes, "own")
    blind = Role("refiner", "{question} {generator}", ("question", "generator"), 1, 9)
    for roles in ((*ROLES[:2], blind), ROLES[:1]):
        with pytest.raises(ValueError, match="there is no critique to replace"):
            again(replace(team, roles=roles), passes, "own")
