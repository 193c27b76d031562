"""Expanding questions into trees of role samples, grading their leaves and giving every node its
value.

A tree is dense: branching is static along the chain, so nodes of one depth lie in order and the
parent of node i is node i // branching.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from malt_jax import credit
from malt_jax.models.lora import Adapter
from malt_jax.roles import Role, prompt_ids
from malt_jax.sampler import Completion, Request, Sampler, Sampling
from malt_jax.settings import CreditSettings
from malt_jax.tasks import Task
from malt_jax.tokenizer import Tokenizer
from malt_jax.types import Grade, Question


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


def expand(
    team: Team, questions: Sequence[Question], progress: Callable[[int], Any] = lambda nodes: None
) -> list[list[Node]]:
    """All nodes of the questions' trees, a list a depth, each in the dense order. `progress`
    hears of new nodes."""
    limits = {role.name: role.max_new_tokens for role in team.roles}
    levels: list[list[Node]] = []
    fronts: list[tuple[Question, tuple[int, ...], dict[str, str]]] = [
        (q, (), {}) for q in questions
    ]
    for role in team.roles:
        prompts = [
            prompt_ids(role, question, team.task.answer_hint, seen, limits, team.tokenizer)
            for question, _, seen in fronts
        ]
        keys = node_keys(
            team.seed, team.stream, [(q.id, path) for q, path, _ in fronts], role.branching
        )
        requests = [Request(p, k) for p, k in zip(prompts, keys, strict=True)]
        children: list[list[Completion]] = [[] for _ in requests]
        for i, completions in team.sampler(
            requests,
            team.adapters.get(role.name),
            max_new_tokens=role.max_new_tokens,
            sampling=team.sampling,
        ):
            children[i] = completions
            progress(len(completions))
        nodes, below = [], []
        for (question, path, seen), prompt, completions in zip(
            fronts, prompts, children, strict=True
        ):
            for c, completion in enumerate(completions):
                text = team.tokenizer.decode(completion.tokens)
                nodes.append(Node(question, role.name, (*path, c), prompt, completion, text))
                below.append((question, (*path, c), {**seen, role.name: text}))
        levels.append(nodes)
        fronts = below
    return levels


def node_keys(
    seed: int, stream: str, parents: Sequence[tuple[str, tuple[int, ...]]], children: int
) -> np.ndarray:
    """Random keys of the children of nodes (question id, path): uint32[N, C, 2].

    A key follows from (seed, stream, question id, path) and nothing else; the sampler folds the
    position in.
    """
    words = np.array([_words(stream, question) for question, _ in parents], np.uint32)
    paths = np.array([path for _, path in parents], np.int32).reshape(len(parents), -1)
    padding = -len(parents) % 64  # few shapes: the program below is compiled once a depth
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


def rows(
    team: Team, levels: Sequence[Sequence[Node]], settings: CreditSettings
) -> list[dict[str, Any]]:
    """The nodes as rows of `shards.SCHEMA`: answers of the first role and of the leaves graded,
    values propagated.

    With `settings.shuffle_rewards` the leaves' rewards are permuted among these trees first;
    `status` keeps the true verdict.
    """
    branching = tuple(role.branching for role in team.roles)
    leaves = [_grade(team, node) for node in levels[-1]]
    rewards = np.array([grade.reward for grade in leaves], np.float32).reshape(-1, *branching)
    if settings.shuffle_rewards:
        rewards = np.asarray(credit.shuffle(rewards, jax.random.key(team.seed)))
    values = [np.asarray(v).ravel() for v in credit.propagate(rewards)]
    labels = [np.asarray(x).ravel() for x in credit.label(values, settings.threshold)]
    out = []
    for depth, nodes in enumerate(levels):
        is_leaf = depth == len(levels) - 1
        for i, node in enumerate(nodes):
            grade = leaves[i] if is_leaf else _grade(team, node) if depth == 0 else None
            out.append(
                {
                    **_describe(team, node),
                    "answer": grade.answer if grade else "",
                    "status": grade.status if grade else "",
                    "reward": float(rewards.flat[i]) if is_leaf else None,
                    "value": float(values[depth][i]),
                    "label": bool(labels[depth][i]),
                }
            )
    return out


def _grade(team: Team, node: Node) -> Grade:
    return team.task.grade(
        node.text,
        node.question.answer,
        truncated=not node.completion.stopped,
        choices=node.question.choices,
    )


def _describe(team: Team, node: Node) -> dict[str, Any]:
    return {
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
