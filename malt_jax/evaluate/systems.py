"""The systems that can be evaluated, as data made of the settings.

To add one, write a function from `Settings` to a `System` and enter it in `SYSTEMS`: it is then
sampled, scored, audited, and shown in every table.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from malt_jax.config.settings import Settings
from malt_jax.rollout import roles
from malt_jax.rollout.roles import Role
from malt_jax.types import System, main_system

Maker = Callable[[Settings], System]


def single_role(settings: Settings) -> Role:
    """The role that is the single agent: `config.eval.single_agent`, or the chain's first role.

    Raises ValueError if there is no such role, or if its prompt shows more than question and hint.
    """
    name = settings.eval.single_agent or settings.chain[0]
    if name not in settings.roles:
        raise ValueError(
            f"config.eval.single_agent: {name!r} is not one of {list(settings.roles)}; name a role "
            "of config.roles"
        )
    try:
        (role,) = roles.chain(replace(settings, chain=(name,)))
    except ValueError as error:
        raise ValueError(
            f"config.eval.single_agent: {name!r} cannot be asked with the question alone "
            f"({error}); name a role of config.roles, in config.chain or not, whose prompt shows "
            "nothing but {question} and {hint}"
        ) from error
    return role


def single_agent(settings: Settings) -> System:
    """One sample of the single agent."""
    return System("sa", "single agent", "base", "single", (single_role(settings).name,))


def untrained_team(settings: Settings) -> System:
    """One pass of the chain without adapters."""
    return System("ma", "untrained team", "base", "team", settings.chain)


def trained_team(settings: Settings) -> System:
    """One pass of the chain under the adapters that MALT trained."""
    return System("malt", "MALT", "trained", "team", settings.chain)


def trained_single(settings: Settings) -> System:
    """One sample of the single agent's role under the adapter that MALT trained for it."""
    role = single_role(settings).name
    return System("generator", f"trained {role}", "trained", "single", (role,))


def debate(settings: Settings) -> System:
    """Single agents that read each other's answers; the last round votes."""
    agents = settings.eval.debate.agents
    return System("debate", "debate", "base", "debate", (single_role(settings).name,), agents)


def vote(maker: Maker) -> Maker:
    """The majority vote over `config.eval.votes` passes of a system."""

    def voted(settings: Settings) -> System:
        system = maker(settings)
        name, title = f"{system.name}_mv", f"{system.title}, vote"
        return replace(system, name=name, title=title, votes=settings.eval.votes)

    return voted


def greedy(maker: Maker) -> Maker:
    """One pass of a system without chance: the likeliest token each time."""

    def decoded(settings: Settings) -> System:
        system = maker(settings)
        name, title = f"{system.name}_greedy", f"{system.title}, greedy"
        return replace(system, name=name, title=title, decoding="greedy")

    return decoded


SYSTEMS: dict[str, Maker] = {
    "sa": single_agent,
    "sa_greedy": greedy(single_agent),
    "sa_mv": vote(single_agent),
    "ma": untrained_team,
    "ma_greedy": greedy(untrained_team),
    "ma_mv": vote(untrained_team),
    "generator": trained_single,
    "generator_mv": vote(trained_single),
    "malt": trained_team,
    "malt_greedy": greedy(trained_team),
    "malt_mv": vote(trained_team),
    "debate": debate,
}
"""Name to maker, in the order of tables."""


def chosen(settings: Settings) -> list[System]:
    """The systems that `config.eval.systems` names, in the order of `SYSTEMS`.

    Raises ValueError if it names none, or one that does not exist; and as `single_role` does.
    """
    names = settings.eval.systems
    if not names:
        raise ValueError(f"config.eval.systems: empty; choose from {list(SYSTEMS)}")
    for name in names:
        if name not in SYSTEMS:
            raise ValueError(f"config.eval.systems: {name!r} is not one of {list(SYSTEMS)}")
    return [maker(settings) for name, maker in SYSTEMS.items() if name in names]


def compared_with_votes(chosen: Sequence[System]) -> System | None:
    """The system whose tokens the votes of single roles may spend: the main one of those that are
    trained or a team; None where there is none."""
    rivals = [system for system in chosen if system.trained or system.kind == "team"]
    return main_system(rivals) if rivals else None


def voters(settings: Settings) -> list[System]:
    """The single roles whose vote a team is compared with at equal compute: the single agent, and
    the same role as MALT trained it, where that is not all of the team compared."""
    apart = settings.chain[1:] or settings.eval.compute_of
    return [single_agent(settings), *([trained_single(settings)] if apart else [])]


def described(system: System) -> dict[str, Any]:
    """A system as JSON has it, in `results.json` and `comparison.json`."""
    return dataclasses.asdict(system) | {"roles": list(system.roles)}


def most_votes(settings: Settings) -> int:
    """The most answers that are drawn from one prompt."""
    return max(settings.eval.votes, *(system.votes for system in chosen(settings)))
