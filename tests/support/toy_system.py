"""Systems that the package does not know."""

from dataclasses import replace

from malt_jax.config.settings import Settings
from malt_jax.evaluate import systems
from malt_jax.types import System


def generator_vote(settings: Settings) -> System:
    """The trained generator alone, by a vote of five."""
    roles = settings.chain[:1]
    return System("generator_mv5", "the trained generator", "trained", "single", roles, 5)


def greedy_team(settings: Settings) -> System:
    """The untrained team without chance."""
    team = systems.untrained_team(settings)
    return replace(team, name="ma_greedy", title="untrained team, greedy", decoding="greedy")
