"""A request of the engine: who writes what for it, from which prompts and random keys, and what it
has come to."""

import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from malt_jax import grading
from malt_jax.credit.verdicts import verdict
from malt_jax.rollout import roles as rollout_roles
from malt_jax.rollout.roles import Role
from malt_jax.rollout.team import Team
from malt_jax.sampler import Sampling
from malt_jax.serve.backend import Answered, Event, Message, Options
from malt_jax.tasks import votes as voting
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question

Tell = Callable[[Event | Exception], Any]


@dataclass(eq=False)
class Ticket:
    """A request, and how far it has come.

    `prompt` gives a role's prompt from what the roles before it wrote in the same pass. `texts` are
    those of each pass by role, `prompts` the lengths of the distinct prompts by role and ids, each
    with the leading tokens that had been computed before.
    """

    team: Team
    roles: tuple[Role, ...]  # that write, in their order
    prompt: Callable[[Role, Mapping[str, str]], list[int]]
    subject: str  # what is asked: a part of the random keys
    options: Options
    sampling: Sampling
    seed: str
    tell: Tell = lambda event: None
    texts: list[dict[str, str]] = field(default_factory=list)
    passes: int = 0  # that are not finished
    prompts: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    written: int = 0  # tokens

    def keys(self, role: Role, run: int) -> np.ndarray:
        """The random key of a role's text in a pass: uint32[1, 2]. It follows from the seed, the
        role, the pass and what is asked."""
        text = "\0".join((self.seed, role.name, str(run), self.subject))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return np.frombuffer(digest[:8], "<u4").astype(np.uint32)[None]

    def read(self, role: Role, prompt: Sequence[int], shared: int) -> None:
        """Notes a prompt that was read; one that stood before counts once."""
        key = role.name, np.asarray(prompt, np.int32).tobytes()
        self.prompts.setdefault(key, (len(prompt), shared))

    def answered(self) -> Answered:
        """What the finished passes come to."""
        last = self.roles[-1].name
        task, written = self.team.task, [texts[last] for texts in self.texts]
        ballots = grading.ballots(task, self.subject, written)
        winner = voting.majority(ballots)
        # Of programs that behave alike the first is shown.
        shown = {
            ballot: voting.answer(task, text)
            for ballot, text in reversed([*zip(ballots, written, strict=True)])
        }
        texts = self.texts[winner or 0]
        lengths, shared = zip(*self.prompts.values(), strict=True)
        return Answered(
            answer="" if winner is None else shown[ballots[winner]],
            text=texts[last],
            votes=dict(Counter(shown[ballot] for ballot in ballots if ballot)),
            verdict=_verdict(self.team, texts),
            tokens_read=sum(lengths),
            tokens_shared=sum(shared),
            tokens_written=self.written,
        )


def of_question(team: Team, question: str, options: Options, tell: Tell) -> Ticket:
    """A question to the team.

    Raises ValueError if it is empty, or too long for a prompt that shows it, for options that make
    no sense, and if what is `written` already is not that of the first roles.
    """
    check(options)
    if not question.strip():
        raise ValueError("question: empty; ask something")
    chain = tuple(_cut(role, options) for role in team.roles)
    given = dict(options.written)
    if {*given} != {role.name for role in chain[: len(given)]} or len(given) == len(chain):
        names = [role.name for role in chain[:-1]]
        raise ValueError(f"written: {[*given]} are not the first roles of {names}")
    tokenizer, hint, context = team.tokenizer, team.task.answer_hint, team.sampler.config.context
    room = rollout_roles.question_budget(chain, hint, context, tokenizer)
    size = _tokens(team, question, room)
    if size > room:
        raise ValueError(
            f"question: {size} tokens or more, and the prompts that show it have room for {room}; "
            "ask a shorter one"
        )
    sizes = rollout_roles.prompt_sizes(chain, hint, tokenizer)
    for role in chain[len(given) :]:
        team.sampler.check(sizes[role.name] + size, role.max_new_tokens, 1)
    asked, limits = Question("", question, ""), {role.name: role.max_new_tokens for role in chain}

    def prompt(role: Role, seen: Mapping[str, str]) -> list[int]:
        return rollout_roles.prompt_ids(role, asked, hint, seen, limits, tokenizer)

    return _ticket(team, chain[len(given) :], prompt, question, options, tell)


def of_conversation(
    team: Team, name: str, messages: Sequence[Message], options: Options, tell: Tell
) -> Ticket:
    """A conversation with one role, in one pass; `options.votes` and `written` do not count.

    Raises ValueError if it is empty, no such role exists, or it does not fit the context.
    """
    check(options)
    role = next((role for role in team.roles if role.name == name), None)
    if role is None:
        raise ValueError(f"role: no {name!r}; the team has {[role.name for role in team.roles]}")
    if not messages:
        raise ValueError("messages: empty; say something")
    context = team.sampler.config.context
    for message in messages:  # before any of them is encoded: the wait would be the server's
        _tokens(team, message.content, context)
    ids = team.tokenizer.conversation([(message.role, message.content) for message in messages])
    wanted = options.max_tokens or max(1, min(role.max_new_tokens, context - len(ids)))
    if len(ids) + wanted > context:
        raise ValueError(
            f"messages: {len(ids)} tokens and {wanted} new ones do not fit the model's context of "
            f"{context}; send less, or ask for fewer"
        )
    team.sampler.check(len(ids), wanted, 1)
    alone = replace(options, votes=1, written={})
    subject = repr([(message.role, message.content) for message in messages])
    writes = (replace(role, max_new_tokens=wanted),)
    return _ticket(team, writes, lambda role, seen: ids, subject, alone, tell)


def _ticket(
    team: Team,
    chain: tuple[Role, ...],
    prompt: Callable[[Role, Mapping[str, str]], list[int]],
    subject: str,
    options: Options,
    tell: Tell,
) -> Ticket:
    default = team.sampling
    sampling = Sampling(
        default.temperature if options.temperature is None else options.temperature,
        default.top_k if options.top_k is None else options.top_k,
        default.top_p if options.top_p is None else options.top_p,
    )
    seed = secrets.token_hex(16) if options.seed is None else str(options.seed)
    texts = [dict(options.written) for _ in range(options.votes)]
    return Ticket(team, chain, prompt, subject, options, sampling, seed, tell, texts, options.votes)


def _cut(role: Role, options: Options) -> Role:
    most = role.max_new_tokens
    return replace(role, max_new_tokens=min(most, options.max_tokens or most))


def check(options: Options) -> None:
    """Raises ValueError naming an option that makes no sense."""
    top_p, temperature = options.top_p, options.temperature
    rules = {
        "votes": (options.votes >= 1, "1 or more passes"),
        "max_tokens": (options.max_tokens is None or options.max_tokens >= 1, "1 or more"),
        "temperature": (
            temperature is None or (math.isfinite(temperature) and temperature >= 0),
            "0 (greedy) or more",
        ),
        "top_k": (options.top_k is None or 0 <= options.top_k < 1 << 31, "0 (all) or more"),
        "top_p": (top_p is None or 0 < top_p <= 1, "a share in (0, 1]"),
        "stop": (all(options.stop), "texts that are not empty"),
    }
    for name, (holds, wanted) in rules.items():
        if not holds:
            raise ValueError(f"{name}: {getattr(options, name)!r}; give {wanted}")


def _tokens(team: Team, text: str, room: int) -> int:
    """How many tokens a text has. Raises ValueError, and encodes nothing, for one that is longer
    than so many of the longest tokens."""
    most = room * _longest(team.tokenizer)
    if len(text) > most:
        raise ValueError(
            f"{len(text):,} characters, of which {room} tokens of this model hold {most:,} at most;"
            " send less"
        )
    return len(team.tokenizer.encode(text))


@lru_cache(maxsize=4)
def _longest(tokenizer: Tokenizer) -> int:
    """Characters of the longest token."""
    return max(map(len, tokenizer.fast.get_vocab(with_added_tokens=False)))


def _verdict(team: Team, texts: Mapping[str, str]) -> bool | None:
    """The last that a role gives of those that give one."""
    given = [verdict(texts[role], marks) for role, marks in team.verdicts.items() if role in texts]
    return next((stated for stated in reversed(given) if stated is not None), None)
