"""How much work a job is: questions, and the tokens of its prompts, completions and examples.

Everything is an upper bound or a stated assumption, so that a plan needs neither the data nor the
tokenizer.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from malt_jax.config.evaluation import EvalSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.settings import Settings
from malt_jax.learn.phases import PHASES
from malt_jax.learn.phases.phase import Forecast
from malt_jax.rollout import roles

QUESTION = 128  # tokens of a question in the mean
UNLIMITED = 2**31  # tokens of a context
LETTERS = 4  # characters of a token, in prompts and questions
CHAT = 32  # tokens of the chat template
POSITIVE = 0.5  # share of samples that are positive
CONTRAST = 0.3  # share of parents with both a positive and a negative child
_SPLITS = {"gsm8k": (7473, 1319), "math": (7500, 5000), "csqa": (9741, 1221)}  # as published

ASSUMPTIONS = (
    f"a question has {QUESTION} tokens or, if that is less, what the model's context leaves it; a "
    f"prompt's text has one token for {LETTERS} letters and {CHAT} more for the chat template",
    "every completion is as long as config.roles.ROLE.max_new_tokens lets it be",
    f"{POSITIVE:.0%} of the samples are positive and {CONTRAST:.0%} of the parents have a positive "
    "and a negative child; no phase ends early",
    "every program runs at its roofline, all rows are busy, and compiling, loading, grading and "
    "saving take no time: hours are a lower bound for these token counts",
)


@dataclass(frozen=True)
class Work:
    """What the devices have to do for the whole job, in tokens and optimiser steps."""

    train_questions: int  # of all rounds
    eval_questions: int
    decoded: Mapping[str, int]  # tokens by stage: collect, evaluate
    prefilled: Mapping[str, int]
    steps: Mapping[str, int]  # optimiser steps by phase, all roles together
    scored: int  # tokens of reference and held-out passes


def question(settings: Settings, context: int, most: int = QUESTION) -> int:
    """Tokens of a question: `most`, or what the context leaves it beside every prompt and
    completion. A job leaves out longer ones."""
    left = (
        context - prompt(settings, role, 0) - role.max_new_tokens for role in roles.chain(settings)
    )
    return max(1, min(most, *left))


def prompt(settings: Settings, role: roles.Role, question: int) -> int:
    """Tokens of a role's prompt, at most, with a question of so many."""
    seen = sum(settings.roles[name].max_new_tokens for name in role.sees if name in settings.roles)
    return len(role.prompt) // LETTERS + CHAT + question + seen


def lengths(settings: Settings, phase: str, context: int) -> tuple[int, int]:
    """Prompt and completion of the longest example of a phase, in tokens."""
    asked = question(settings, context)
    sizes = [
        (prompt(settings, role, asked), role.max_new_tokens)
        for role in roles.chain(settings)
        if phase in settings.roles[role.name].train
    ]
    return max(sizes, key=sum)


def phases(settings: Settings) -> dict[str, PhaseSettings]:
    """The phases that any role is trained in."""
    used = {phase for role in settings.chain for phase in settings.roles[role].train}
    return {name: chosen for name, chosen in settings.phases.items() if name in used}


def work(settings: Settings, teams: int = 2, context: int = UNLIMITED) -> Work:
    """The whole job, for a model of that context; `teams` counts the teams that are evaluated.
    Raises ValueError where nobody can know the number of questions."""
    train, held_out = questions(settings)
    asked = question(settings, context)
    chain = roles.chain(settings)
    nodes = [math.prod(settings.branching[: i + 1]) for i in range(len(chain))]
    new = [role.max_new_tokens for role in chain]
    greedy = any(name.endswith("_greedy") for name in settings.eval.systems)
    passes, chain_tokens = settings.eval.votes + greedy, sum(new)
    # Each team's first role votes with the tokens of the team's own vote.
    voting = settings.eval.votes * (chain_tokens - new[0]) if settings.eval.equal_compute else 0
    rounds, steps, scored = settings.rounds.count, Counter[str](), 0
    for number in range(rounds):
        learned = train * (1 + min(number, settings.rounds.replay))
        steps_of_round, scored_of_round = _training(settings, learned, context)
        steps += steps_of_round
        scored += scored_of_round
    collect = sum(n * tokens for n, tokens in zip(nodes, new, strict=True))
    trees = 0 if settings.trees else train * rounds
    over, developing = settings.rounds, settings.data.development_questions
    # At every candidate for a round's temperature.
    trees += rounds * len(over.temperatures) * min(over.temperature_questions, developing)
    # Every round's team on the development split, and in the first round the untrained one.
    developed = developing * (rounds + 1) if rounds > 1 else 0
    at_development = EvalSettings().votes + 1  # and a greedy one
    return Work(
        train * rounds,
        held_out,
        {
            "collect": trees * collect,
            "evaluate": held_out * teams * (passes * chain_tokens + voting)
            + developed * at_development * chain_tokens,
        },
        {
            "collect": trees * _prefilled(settings, chain, nodes, asked),
            "evaluate": teams * held_out * _prefilled(settings, chain, [passes] * len(chain), asked)
            + developed * _prefilled(settings, chain, [at_development] * len(chain), asked),
        },
        dict(steps),
        scored,
    )


def _training(settings: Settings, train: int, context: int) -> tuple[Counter[str], int]:
    """Optimiser steps by phase of training every role on the trees of so many questions, and the
    tokens of its reference and held-out passes."""
    asked, chain = question(settings, context), roles.chain(settings)
    nodes = [math.prod(settings.branching[: i + 1]) for i in range(len(chain))]
    steps, scored = Counter[str](), 0
    for i, role in enumerate(chain):
        parents = train * (nodes[i - 1] if i else 1)
        for name in settings.roles[role.name].train:
            phase, chosen = PHASES[name], settings.phases[name]
            forecast = Forecast(train * nodes[i], parents, POSITIVE, CONTRAST)
            examples = math.ceil(phase.expected(forecast, settings.credit))
            tokens = prompt(settings, role, asked) + role.max_new_tokens * phase.branches
            learnt = math.ceil(examples * (1 - chosen.held_out))
            updates = math.ceil(learnt / (chosen.batch * chosen.accumulate)) * chosen.epochs
            steps[name] += updates
            evaluations = math.ceil(updates / chosen.eval_every) if chosen.held_out else 0
            evaluations += chosen.held_out > 0  # and one of the start
            # An evaluation is a pass of the adapter and one of the reference, for the KL.
            scored += 2 * evaluations * math.ceil(examples * chosen.held_out) * tokens
            # Passes of the reference policy and of the base over all examples.
            scored += examples * tokens * (phase.needs_reference + phase.needs_base(chosen))
    return steps, scored


def _prefilled(
    settings: Settings, chain: tuple[roles.Role, ...], nodes: list[int], asked: int
) -> int:
    """Prompt tokens of a tree that no other prompt of it begins with: each role's question, and
    what every ancestor wrote that the role is shown."""
    of = dict(zip(settings.chain, nodes, strict=True))
    return sum(
        asked
        + sum(of[name] * settings.roles[name].max_new_tokens for name in role.sees if name in of)
        for role in chain
    )


def questions(settings: Settings) -> tuple[int, int]:
    """Training and evaluation questions."""
    wanted = (settings.data.train_questions, settings.data.eval_questions)
    if all(wanted):
        return wanted
    if settings.data.task not in _SPLITS:
        name = "train_questions" if not wanted[0] else "eval_questions"
        raise ValueError(
            f"config.data.{name}: 0 takes all of {settings.data.task!r}, and a plan reads no data; "
            f"say how many with --config.data.{name}=N"
        )
    published = _SPLITS[settings.data.task]
    return wanted[0] or published[0], wanted[1] or published[1]
