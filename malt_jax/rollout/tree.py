"""Expanding questions into trees of role samples, grading their leaves and giving every node its
value.

A tree is dense: branching is static along the chain, so nodes of one depth lie in order and the
parent of node i is node i // branching.
"""

import hashlib
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from malt_jax import credit, grading
from malt_jax.config.settings import CreditSettings
from malt_jax.grading import Sample
from malt_jax.models.lora import Adapter
from malt_jax.rollout.roles import Role, prompt_ids
from malt_jax.sampler import Completion, Request, Sampler, Sampling, Work
from malt_jax.tasks import Task
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question

Row = dict[str, Any]

Whole = TypeVar("Whole")


@dataclass(frozen=True)
class Team:
    """What turns questions into trees: a model, its roles and their adapters (None or absent: the
    base model).

    `stream` keeps the random numbers of different uses of one question apart (collection,
    evaluation).
    """

    sampler: Sampler
    tokenizer: Tokenizer
    roles: tuple[Role, ...]
    adapters: Mapping[str, Adapter | None]
    task: Task
    sampling: Sampling
    seed: int
    stream: str


@dataclass(frozen=True)
class Node:
    """One sample of one role. `path` holds the child indices from the root; its length is the
    depth."""

    question: Question
    role: str
    path: tuple[int, ...]
    prompt: list[int]
    completion: Completion
    text: str


def grow(
    team: Team,
    questions: Sequence[Question],
    settings: CreditSettings,
    per_batch: int,
    progress: Callable[[int], Any],
    work: Work,
) -> Iterator[list[Row]]:
    """The rows of the questions' trees, `per_batch` questions at a time and in their order.

    Trees of later batches grow beside those of earlier ones, so that no row of the sampler waits
    for the end of a batch.
    """
    for trees in in_order(questions, per_batch, expand(team, questions, progress, work)):
        together = [[n for level in depth for n in level] for depth in zip(*trees, strict=True)]
        yield rows(team, together, settings)


def in_order(
    questions: Sequence[Question], per_batch: int, whole: Iterable[tuple[Question, Whole]]
) -> Iterator[list[Whole]]:
    """What `whole` makes of the questions, in whatever order it comes: `per_batch` questions at a
    time and in their order, each batch as soon as it is there."""
    waiting: dict[str, Whole] = {}
    batches = [questions[i : i + per_batch] for i in range(0, len(questions), per_batch)]
    for question, made in whole:
        waiting[question.id] = made
        while batches and all(q.id in waiting for q in batches[0]):
            yield [waiting.pop(q.id) for q in batches.pop(0)]


def expand(
    team: Team,
    questions: Iterable[Question],
    progress: Callable[[int], Any] = lambda nodes: None,
    work: Work | None = None,
) -> Iterator[tuple[Question, list[list[Node]]]]:
    """Each question with the nodes of its tree, a list a depth in the dense order, as soon as the
    tree is whole. `progress` hears of new nodes.

    The roles of all open trees decode side by side, each under its own adapter.
    """
    own = [team.adapters.get(role.name) for role in team.roles]
    distinct = [a for i, a in enumerate(own) if all(a is not b for b in own[:i])]
    adapters = [next(i for i, b in enumerate(distinct) if b is a) for a in own]
    limits = {role.name: role.max_new_tokens for role in team.roles}
    sizes = list(itertools.accumulate((role.branching for role in team.roles), operator.mul))

    def ask(tree: _Tree, path: tuple[int, ...], seen: dict[str, str]) -> Request:
        role = team.roles[len(path)]
        question = tree.question
        prompt = prompt_ids(role, question, team.task.answer_hint, seen, limits, team.tokenizer)
        keys = node_keys(team.seed, team.stream, [(question.id, path)], role.branching)[0]
        tag = (tree, path, seen)
        return Request(prompt, keys, role.max_new_tokens, adapters[len(path)], tag)

    begun = (_Tree(place, q, [{} for _ in team.roles]) for place, q in enumerate(questions))
    pending = Pending(ask(tree, (), {}) for tree in begun)
    for request, completions in sample(team, pending, distinct, work):
        tree, path, seen = request.tag
        role = team.roles[len(path)]
        for c, completion in enumerate(completions):
            text = team.tokenizer.decode(completion.tokens)
            node = Node(
                tree.question, role.name, (*path, c), list(request.prompt), completion, text
            )
            tree.nodes[len(path)][node.path] = node
            if len(node.path) < len(team.roles):
                asked = ask(tree, node.path, {**seen, role.name: text})
                pending.add(tree.place, len(node.path), asked)
        progress(len(completions))
        if [len(level) for level in tree.nodes] == sizes:
            yield (
                tree.question,
                [[node for _, node in sorted(level.items())] for level in tree.nodes],
            )


@dataclass
class Pending:
    """Requests that wait for rows: those that follow from what was seen before `fresh` ones, which
    are made when rows are free. What was begun is finished before more is begun, and in that order,
    so that little is open at a time and a shard is whole early."""

    fresh: Iterator[Request]
    _heap: list[tuple[int, int, int, Request]] = field(default_factory=list)
    _added: Iterator[int] = field(default_factory=itertools.count)

    def add(self, place: int, depth: int, request: Request) -> None:
        """`place` is that of the question; of one question's requests the deepest goes first."""
        heappush(self._heap, (place, -depth, next(self._added), request))

    def take(self) -> Request | None:
        """The next one, or None."""
        return heappop(self._heap)[-1] if self._heap else next(self.fresh, None)


def sample(
    team: Team, pending: Pending, adapters: Sequence[Adapter | None], work: Work | None
) -> Iterator[tuple[Request, list[Completion]]]:
    """Samples what is pending, and what the caller adds to it for what it has seen so far."""
    return team.sampler.run(pending.take, adapters, sampling=team.sampling, work=work)


@dataclass(frozen=True)
class _Tree:
    """A tree that grows: by depth, the nodes that are there by path. `place` is where its question
    stands among the questions."""

    place: int
    question: Question
    nodes: list[dict[tuple[int, ...], Node]]


def node_keys(
    seed: int, stream: str, parents: Sequence[tuple[str, tuple[int, ...]]], children: int
) -> np.ndarray:
    """Random keys of the children of nodes (question id, path): uint32[N, C, 2].

    A key follows from (seed, stream, question id, path) and nothing else; the sampler folds the
    position in.
    """
    words = np.array([_words(stream, question) for question, _ in parents], np.uint32)
    paths = np.array([path for _, path in parents], np.int32).reshape(len(parents), -1)
    if len(parents) > 1:  # few shapes: the program below is compiled twice a depth
        padding = -len(parents) % 64
        words = np.pad(words, ((0, padding), (0, 0)))
        paths = np.pad(paths, ((0, padding), (0, 0)))
    return np.asarray(_node_keys(seed, words, paths, children))[: len(parents)]


def _words(stream: str, question: str) -> list[int]:
    digest = hashlib.sha256(f"{stream}\0{question}".encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]


_SAMPLING = 0xFFFFFFFF  # sets a node's own stream apart from its children's keys


@partial(jax.jit, static_argnames="children")
def _node_keys(seed: int, words: Array, paths: Array, children: int) -> Array:
    def of(word: Array, path: Array, child: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), word[0]), word[1])
        for step in (*path, child, jnp.uint32(_SAMPLING)):
            key = jax.random.fold_in(key, step)
        return jax.random.key_data(key)

    over_children = jax.vmap(of, (None, None, 0))
    return jax.vmap(over_children, (0, 0, None))(words, paths, jnp.arange(children))


def rows(team: Team, levels: Sequence[Sequence[Node]], settings: CreditSettings) -> list[Row]:
    """The nodes as rows of `shards.SCHEMA`: answers of the first role and of the leaves graded,
    values propagated.

    With `settings.shuffle_rewards` the leaves' rewards are permuted among these trees first;
    `status` keeps the true verdict. A leaf that could not be graded is missing: no reward, and it
    counts in no mean. A node without a graded leaf has neither value nor label.
    """
    last = len(levels) - 1
    found = [
        answers(team, nodes) if depth in (0, last) else [_row(team, node) for node in nodes]
        for depth, nodes in enumerate(levels)
    ]
    return value(found, tuple(role.branching for role in team.roles), settings, team.seed)


def value(
    levels: Sequence[Sequence[Row]], branching: Sequence[int], settings: CreditSettings, seed: int
) -> list[Row]:
    """Rows with their reward (of leaves), value and label. `levels` holds the rows of whole trees
    by depth, in the dense order; a leaf's reward follows from its `status`."""
    verdicts = {"correct": 1.0, "unknown": np.nan}
    rewards = np.array([verdicts.get(row["status"], 0.0) for row in levels[-1]], np.float32)
    rewards = rewards.reshape(-1, *branching)
    if settings.shuffle_rewards:
        rewards = np.asarray(credit.shuffle(rewards, jax.random.key(seed)))
    values = [np.asarray(v).ravel() for v in credit.propagate(rewards)]
    labels = [np.asarray(x).ravel() for x in credit.label(values, settings.threshold)]
    out = []
    for depth, nodes in enumerate(levels):
        for i, row in enumerate(nodes):
            known = not np.isnan(values[depth][i])
            assigned = {
                "reward": float(rewards.flat[i]) if known and nodes is levels[-1] else None,
                "value": float(values[depth][i]) if known else None,
                "label": bool(labels[depth][i]) if known else None,
            }
            out.append({**row, **assigned})
    return out


def answers(team: Team, nodes: Sequence[Node]) -> list[Row]:
    """Nodes that answer as rows of `shards.SCHEMA`: graded, but without reward, value and label,
    which belong to trees."""
    samples = [
        Sample(n.text, n.question.answer, not n.completion.stopped, n.question.choices)
        for n in nodes
    ]
    grades = grading.grade(team.task, samples)
    return [
        _row(team, node) | {"answer": grade.answer, "status": grade.status}
        for node, grade in zip(nodes, grades, strict=True)
    ]


def _row(team: Team, node: Node) -> Row:
    """A node that is not graded, or not yet."""
    return {
        **dict.fromkeys(("reward", "value", "label")),
        "answer": "",
        "status": "",
        "question_id": node.question.id,
        "question": node.question.text,
        "reference": node.question.answer,
        "role": node.role,
        "path": list(node.path),
        "prompt": team.tokenizer.decode(node.prompt, control=True),
        "completion": node.text,
        "prompt_tokens": len(node.prompt),
        "completion_tokens": len(node.completion.tokens),
        "logprob": float(node.completion.logps.sum()),
        "finish_reason": "stop" if node.completion.stopped else "length",
        "prompt_token_ids": node.prompt,
        "completion_token_ids": node.completion.tokens,
    }
