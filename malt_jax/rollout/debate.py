"""Multi-agent debate, a baseline without training: agents read each other's answers and answer
again, and the last round votes.

Source: Du et al., arXiv 2305.14325; MALT's table has 3 agents and 3 rounds. Every agent is the
chain's first role under its adapter. There an agent goes on with its chat and so keeps its own
answers before it; here a prompt is one message, and an agent sees the others' last answers only.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from malt_jax.config.settings import DebateSettings
from malt_jax.rollout import tree
from malt_jax.rollout.roles import Role, prompt_ids
from malt_jax.rollout.tree import Node, Row, Team
from malt_jax.sampler import Request, Work
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question

STREAM = "debate"
NAME = "debater"


def grow(
    team: Team,
    questions: Sequence[Question],
    how: DebateSettings,
    per_batch: int,
    progress: Callable[[int], Any],
    work: Work,
) -> Iterator[list[Row]]:
    """The rows of the questions' debates, `per_batch` questions at a time and in their order.

    A question has agents * rounds rows of `shards.SCHEMA`, round by round: role "debater", path
    [agent, round] from 0 on, every answer graded; there is no reward, value or label.
    """
    whole = expand(team, questions, how, progress, work)
    for debates in tree.in_order(questions, per_batch, whole):
        yield tree.answers(team, [node for nodes in debates for node in nodes])


def expand(
    team: Team,
    questions: Iterable[Question],
    how: DebateSettings,
    progress: Callable[[int], Any] = lambda nodes: None,
    work: Work | None = None,
) -> Iterator[tuple[Question, list[Node]]]:
    """Each question with its debate's nodes, round by round and in agent order, as soon as the last
    agent has spoken. Debates run side by side, and within one a round waits for the one before."""
    first, hint, agents, rounds = team.roles[0], team.task.answer_hint, how.agents, how.rounds
    again, names = debater(first, how), _names(agents)
    limits = dict.fromkeys(names, first.max_new_tokens)

    def begin(place: int, question: Question) -> Request:
        parents = [(question.id, (agent,)) for agent in range(agents)]
        keys = tree.node_keys(team.seed, STREAM, parents, rounds)
        prompt = prompt_ids(first, question, hint, {}, {}, team.tokenizer)
        debate = _Debate(place, question, keys, [{}])
        return Request(prompt, keys[:, 0], first.max_new_tokens, tag=(debate, range(agents)))

    def follow(debate: _Debate, agent: int) -> Request:
        said = debate.rounds[-2]
        others = [said[other].text for other in range(agents) if other != agent]
        seen = dict(zip(names, others, strict=True))
        prompt = prompt_ids(again, debate.question, hint, seen, limits, team.tokenizer)
        keys = debate.keys[[agent], len(debate.rounds) - 1]
        return Request(prompt, keys, again.max_new_tokens, tag=(debate, [agent]))

    adapters = [team.adapters.get(first.name)]
    pending = tree.Pending(itertools.starmap(begin, enumerate(questions)))
    for request, completions in tree.sample(team, pending, adapters, work):
        debate, speakers = request.tag
        spoken, prompt = debate.rounds[-1], list(request.prompt)
        for agent, completion in zip(speakers, completions, strict=True):
            text = team.tokenizer.decode(completion.tokens)
            path = (agent, len(debate.rounds) - 1)
            spoken[agent] = Node(debate.question, NAME, path, prompt, completion, text)
        progress(len(completions))
        if len(spoken) < agents:
            continue
        if len(debate.rounds) == rounds:
            yield debate.question, [said[a] for said in debate.rounds for a in range(agents)]
        else:
            debate.rounds.append({})
            for agent in range(agents):
                pending.add(debate.place, len(debate.rounds), follow(debate, agent))


@dataclass(frozen=True)
class _Debate:
    """A debate under way: `keys: uint32[agents, rounds, 2]`, and each begun round's nodes by
    agent. `place` is where its question stands among the questions."""

    place: int
    question: Question
    keys: np.ndarray
    rounds: list[dict[int, Node]]


def debater(first: Role, how: DebateSettings) -> Role:
    """An agent after the first round. Each of the other agents' answers is a field of its own, so
    that the prompt's length is bounded by theirs."""
    names = _names(how.agents)
    others = "\n\n".join(how.other.replace("{other}", f"{{{name}}}") for name in names)
    prompt = how.prompt.replace("{others}", others)
    sees = [field for field in ("question", "hint") if f"{{{field}}}" in how.prompt]
    return Role(NAME, prompt, (*sees, *names), 1, first.max_new_tokens)


def prompt_size(first: Role, how: DebateSettings, hint: str, tokenizer: Tokenizer) -> int:
    """The most tokens that a debater's prompt may have beside those of the question; it writes up
    to `first.max_new_tokens`. The counterpart of `roles.prompt_sizes`."""
    names, blank = _names(how.agents), Question("", "", "")
    limits, empty = dict.fromkeys(names, first.max_new_tokens), dict.fromkeys(names, "")
    ids = prompt_ids(debater(first, how), blank, hint, empty, limits, tokenizer)
    return len(ids) + sum(limits.values())


def question_budget(
    first: Role, how: DebateSettings, hint: str, context: int, tokenizer: Tokenizer
) -> int:
    """The most tokens a question may have if a debater's prompt and answer are to fit the context:
    the counterpart of `roles.question_budget`.

    Raises ValueError if nothing is left for a question.
    """
    limit = first.max_new_tokens
    left = context - prompt_size(first, how, hint, tokenizer) - limit
    if left < 1:
        raise ValueError(
            f"config.eval.debate: a prompt with the answers of {how.agents - 1} other agents, each "
            f"of up to config.roles.{first.name}.max_new_tokens={limit} tokens, leaves no room for "
            f"a question in the model's context of {context} tokens; lower that limit or "
            "config.eval.debate.agents, or leave 'debate' out of config.eval.systems"
        )
    return left


def _names(agents: int) -> list[str]:
    return [f"other_{i}" for i in range(1, agents)]
