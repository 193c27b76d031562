"""A team of a random model, and its trees."""

import small

from malt_jax import tasks
from malt_jax.rollout import driver, records
from malt_jax.rollout.roles import Role
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Node
from malt_jax.runtime import hosts, mesh
from malt_jax.sampler import Sampler, Sampling, Work
from malt_jax.types import Question
from malt_jax.workdir import growth

ROLES = (
    Role("generator", "Solve {question}", ("question",), 3, 12),
    Role("verifier", "Check {question}: {generator}", ("question", "generator"), 2, 10),
    Role(
        "refiner", "{question} {generator} {verifier}", ("question", "generator", "verifier"), 3, 9
    ),
)


QUESTIONS = [Question(f"q{i}", f"{i}+{i}", str(2 * i)) for i in range(5)]


def team(rows: int = 12, scale: float = 4.0) -> Team:
    model = small.model(scale=scale)
    tokenizer = small.tokenizer()
    sampler = Sampler(
        model.config, model.params, mesh.make(), rows, tokenizer.stop_ids, tokenizer.pad_id
    )
    task = tasks.get("arithmetic")
    return Team(sampler, tokenizer, ROLES, {}, task, Sampling(1.0), 0, "collect")


def trees(playing: Team, questions=QUESTIONS, **named) -> dict[str, list[list[Node]]]:
    """The questions' full trees, a list of nodes a depth."""
    whole = driver.expand(full_tree(playing), questions, **named)
    return {tree.question.id: by_depth(tree.nodes) for tree in whole}


def by_depth(nodes: list[Node]) -> list[list[Node]]:
    depths = range(1 + max(node.depth for node in nodes))
    return [[node for node in nodes if node.depth == depth] for depth in depths]


def store(directory, strategy, calls, kill_after=None):
    """Shards of two questions; `calls` hears the ids of those that are asked for. A kill
    (KeyboardInterrupt) comes once `kill_after` trees are there."""

    def grow_rows(pending, progress):
        calls.append([question.id for question in pending])
        for i, rows in enumerate(driver.grow(strategy, pending, progress, Work())):
            if i == kill_after:
                raise KeyboardInterrupt
            yield rows

    sizes = {"per_shard": 2, "nodes_per_question": strategy.nodes}
    growth.grow(directory, QUESTIONS, grow_rows, records.SCHEMA, **sizes, title="test")


def grow_nothing(directory, calls, part=hosts.ALL, fails_at=""):
    """Shards of two questions, a node each, which `calls` hears of."""

    def grow_rows(pending, progress):
        calls.append([question.id for question in pending])
        for question in pending:
            if question.id == fails_at:
                raise OSError("planted")
            yield [dict.fromkeys(records.SCHEMA.names) | {"question_id": question.id}]

    growth.grow(
        directory,
        QUESTIONS,
        grow_rows,
        records.SCHEMA,
        per_shard=2,
        nodes_per_question=1,
        title="test",
        part=part,
    )
