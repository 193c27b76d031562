"""What a team is made of and does: samples, trees, an answer by vote."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from malt_jax import credit, tasks
from malt_jax.api.asking import Solution, Team
from malt_jax.config.credit import CreditSettings
from malt_jax.config.settings import RoleSettings
from malt_jax.models import Model
from malt_jax.models.lora import Adapter
from malt_jax.rollout import driver, roles
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.runtime import mesh
from malt_jax.sampler import Request, Sampler, Sampling, Work
from malt_jax.types import Question

Row = dict[str, Any]
Asked = Question | tuple[str, str]
"""A question: with all that it has, or its text and its reference answer."""


def sample(
    model: Model,
    prompts: Sequence[str],
    n: int = 1,
    *,
    max_new_tokens: int = 300,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    adapter: Adapter | None = None,
    rows: int = 32,
    seed: int = 0,
) -> list[list[str]]:
    """`n` completions of every prompt, which goes to the model as a user's message.

    Args:
        temperature: 0 is greedy; `top_k` 0 and `top_p` 1 are off.
        rows: sequences decoded at a time.
        seed: fixes all random numbers: a prompt's samples do not depend on the other prompts.

    Raises ValueError for a prompt that does not fit the model's context.
    """
    tokenizer = model.tokenizer
    requests = (
        Request(
            tokenizer.prompt("{text}", {"text": prompt}),
            np.asarray(jax.random.key_data(jax.random.split(_key(seed, prompt), n))),
            max_new_tokens,
            tag=i,
        )
        for i, prompt in enumerate(prompts)
    )
    sampling = Sampling(temperature, top_k, top_p)
    sampled = _sampler(model, rows, n).run(
        lambda: next(requests, None), [adapter], sampling=sampling
    )
    texts = {
        request.tag: [tokenizer.decode(completion.tokens) for completion in completions]
        for request, completions in sampled
    }
    return [texts[i] for i in range(len(prompts))]


def team(
    model: Model,
    prompts: Mapping[str, str],
    task: str,
    *,
    branching: int = 3,
    max_new_tokens: int | Mapping[str, int] = 300,
    adapters: Mapping[str, Adapter | None] | None = None,
    temperature: float = 0.3,
    top_k: int = 0,
    top_p: float = 1.0,
    rows: int = 32,
    seed: int = 0,
) -> Team:
    """A team whose roles share `model`.

    Args:
        prompts: by role, in the order in which they work. A prompt shows {question}, {hint} (the
            kind of answer) and what earlier roles wrote, as in "{question} {generator}".
        task: how answers are read and graded: a benchmark's name, or FILE.py:NAME of your own.
        branching: samples of a prompt when trees are grown.
        max_new_tokens: of every role, or by role.
        adapters: by role; a role without one plays under the base model.
        temperature, top_k, top_p: as in `sample`.
        rows: sequences decoded at a time, over all devices.

    Raises ValueError for a prompt that shows what its role cannot see, and for an unknown task.
    """
    lengths = max_new_tokens if isinstance(max_new_tokens, Mapping) else {}
    length = 300 if isinstance(max_new_tokens, Mapping) else max_new_tokens
    chain = roles.in_order(
        {
            name: RoleSettings(prompt, branching, lengths.get(name, length))
            for name, prompt in prompts.items()
        }
    )
    return Team(
        sampler=_sampler(model, rows, branching),
        tokenizer=model.tokenizer,
        roles=chain,
        adapters=adapters or {},
        task=tasks.get(task),
        sampling=Sampling(temperature, top_k, top_p),
        seed=seed,
        random_stream="collect",
        base=model.content_hash if model.files else "",
    )


def grow(
    asked: Team, questions: Sequence[Asked], *, threshold: float = 0.5, seed: int = 0
) -> list[list[Row]]:
    """The questions' trees of samples, graded, each node with its worth.

    Returns:
        For every question the rows of its nodes, by depth and path: `role`, `node` and `parent`
        (indices in the tree; -1 at a root), `prompt`, `completion`, their token ids,
        `logprobs` (nats a token), `answer`, `status`, `score` in [0, 1], and derived from the
        scores of the leaves `reward`, `value` and `label` (value strictly above `threshold`).

    Source: MALT, arXiv 2412.01928, sections 4.1 and 4.2.
    """
    complete = [_question(question, i) for i, question in enumerate(questions)]
    settings = CreditSettings(threshold=threshold)
    grown = driver.grow(full_tree(asked), complete, lambda nodes: None, Work())
    trees = {nodes[0]["question_id"]: nodes for nodes in grown}
    return [credit.assign(trees[question.id], settings, seed) for question in complete]


def solve(asked: Team, question: str, votes: int = 3) -> Solution:
    """The team's answer to a question: `Team.solve`.

    Of answers with as many votes the one that appeared first wins. The same team, question and
    number of votes give the same solution.
    """
    return asked.solve(question, votes)


def _sampler(model: Model, rows: int, children: int) -> Sampler:
    """A sampler on all devices."""
    devices, tokenizer = mesh.make(), model.tokenizer
    params = jax.tree.map(mesh.put, model.params, mesh.tree_shardings(devices, model.params))
    return Sampler(
        model.config,
        params,
        devices,
        max(rows, children),
        tokenizer.stop_ids,
        tokenizer.pad_id,
        siblings=min(children, 4),  # of more the cache is read apart
    )


def _question(asked: Asked, place: int) -> Question:
    if isinstance(asked, Question):
        return asked
    text, answer = asked
    return Question(f"{place}-{_name(text)}", text, answer)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(seed: int, text: str) -> Array:
    return jax.random.fold_in(jax.random.key(seed), int(_name(text)[:8], 16))
