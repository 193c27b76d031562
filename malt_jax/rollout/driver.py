"""The driver of every strategy: keeps the sampler busy with what the questions' trees ask for, and
the grader with the answers that come out of it."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax import grading
from malt_jax.grading import Sample
from malt_jax.rollout import records
from malt_jax.rollout.keys import node_keys
from malt_jax.rollout.records import Row
from malt_jax.rollout.roles import prompt_ids
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree
from malt_jax.runtime import hosts
from malt_jax.sampler import Completion, Request, Work
from malt_jax.types import Grade, Question
from malt_jax.workdir import shards

Hear = Callable[[Question, Sequence[Node]], Any]


def store(
    directory: Path, strategy: Strategy, questions: Sequence[Question], per_shard: int, title: str
) -> None:
    """Grows what `directory` does not hold yet of the questions' trees, in shards of `per_shard`
    questions. See `shards.grow`."""
    work = Work()

    def grow_rows(
        pending: Sequence[Question], progress: Callable[[int], Any]
    ) -> Iterator[list[Row]]:
        return grow(strategy, pending, per_shard, progress, work)

    shards.grow(
        directory,
        questions,
        grow_rows,
        records.SCHEMA,
        per_shard=per_shard,
        nodes_per_question=strategy.nodes,
        title=title,
        part=hosts.part(strategy.team.sampler.mesh),
    )
    logging.info("%s: %s", title, work.summary())


def grow(
    strategy: Strategy,
    questions: Sequence[Question],
    per_batch: int,
    progress: Callable[[int], Any],
    work: Work,
) -> Iterator[list[Row]]:
    """The rows of the questions' trees (`records.SCHEMA`), `per_batch` questions at a time and in
    their order; those of a tree stand together, by depth and path. `progress` hears of new nodes.

    Trees of later batches grow beside those of earlier ones, so that no row of the sampler waits
    for the end of a batch, and answers are graded as they come, beside the sampler.
    """
    task = strategy.team.task
    verdicts: dict[str, list[tuple[list[Node], Future[list[Grade]]]]] = defaultdict(list)

    def hear(question: Question, nodes: Sequence[Node]) -> None:
        progress(len(nodes))
        answering = [node for node in nodes if node.answers]
        samples = [
            Sample(
                node.text,
                question.answer,
                not node.completion.stopped,
                question.choices,
                question.text,
            )
            for node in answering
        ]
        if samples:
            verdicts[question.id].append((answering, grading.submit(task, samples)))

    for trees in in_order(questions, per_batch, expand(strategy, questions, hear, work)):
        batch = []
        for tree in trees:
            grades: dict[Node, Grade] = {}
            for nodes, graded in verdicts.pop(tree.question.id, ()):
                grades.update(zip(nodes, graded.result(), strict=True))
            batch += records.rows(strategy.team, tree, grades)
        yield batch


def in_order(
    questions: Sequence[Question], per_batch: int, trees: Iterable[Tree]
) -> Iterator[list[Tree]]:
    """The questions' trees, in whatever order they come: `per_batch` questions at a time and in
    their order, each batch as soon as it is whole."""
    waiting: dict[str, Tree] = {}
    batches = [questions[i : i + per_batch] for i in range(0, len(questions), per_batch)]
    for tree in trees:
        waiting[tree.question.id] = tree
        while batches and all(question.id in waiting for question in batches[0]):
            yield [waiting.pop(question.id) for question in batches.pop(0)]


def expand(
    strategy: Strategy,
    questions: Iterable[Question],
    hear: Hear = lambda question, nodes: None,
    work: Work | None = None,
) -> Iterator[Tree]:
    """Each question's tree as soon as it is whole, its nodes by depth and path. `hear` is told of
    every request's nodes as they come.

    The roles of all open trees decode side by side, each under its own adapter. What was begun is
    finished before more is begun, and in that order, so that little is open at a time and a shard
    is whole early: of what is asked for, the earliest question's goes first, and of that the
    deepest.

    Raises ValueError for a question of which the strategy asks nothing.
    """
    team = strategy.team
    adapters = [team.adapters.get(role.name) for role in team.roles]
    distinct = [a for i, a in enumerate(adapters) if all(a is not b for b in adapters[:i])]
    slots = {
        role.name: next(i for i, b in enumerate(distinct) if b is a)
        for role, a in zip(team.roles, adapters, strict=True)
    }
    begun, order = enumerate(questions), itertools.count()
    pending: list[tuple[int, int, int, _Open, Ask]] = []

    def follow(open_tree: _Open, fresh: Sequence[Node]) -> None:
        for ask in strategy.asks(open_tree.tree, fresh):
            depth = 0 if ask.parent is None else ask.parent.depth + 1
            heappush(pending, (open_tree.place, -depth, next(order), open_tree, ask))
            open_tree.unfinished += 1

    def take() -> Request | None:
        if not pending:
            place, question = next(begun, (0, None))
            if question is None:
                return None
            follow(_Open(place, Tree(question)), ())
            if not pending:
                raise ValueError(f"question {question.id!r}: the strategy asks nothing of it")
        *_, open_tree, ask = heappop(pending)
        return _request(team, open_tree, ask, slots[ask.adapter])

    sampled = team.sampler.run(take, distinct, sampling=team.sampling, work=work)
    for request, completions in sampled:
        open_tree, ask = request.tag
        tree = open_tree.tree
        fresh = _nodes(team, ask, request, completions)
        tree.nodes += fresh
        open_tree.unfinished -= 1
        hear(tree.question, fresh)
        follow(open_tree, fresh)
        if not open_tree.unfinished:
            yield Tree(tree.question, sorted(tree.nodes, key=lambda node: (node.depth, node.path)))


@dataclass
class _Open:
    """A tree that grows: the place of its question among the questions, and how many of its
    requests are not finished."""

    place: int
    tree: Tree
    unfinished: int = 0


def _request(team: Team, open_tree: _Open, ask: Ask, slot: int) -> Request:
    question, hint = open_tree.tree.question, team.task.answer_hint
    prompt = prompt_ids(ask.role, question, hint, ask.seen, ask.limits, team.tokenizer)
    keys = node_keys(team.seed, team.stream, question.id, ask.paths)
    return Request(prompt, keys, ask.role.max_new_tokens, slot, tag=(open_tree, ask))


def _nodes(team: Team, ask: Ask, request: Request, completions: Sequence[Completion]) -> list[Node]:
    return [
        Node(
            role=ask.role.name,
            path=path,
            parent=ask.parent,
            prompt=list(request.prompt),
            completion=completion,
            text=team.tokenizer.decode(completion.tokens),
            adapter=ask.adapter,
            answers=ask.answers,
        )
        for path, completion in zip(ask.paths, completions, strict=True)
    ]
