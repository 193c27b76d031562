"""Systems that the package does not know."""

from malt_jax.config.settings import Settings
from malt_jax.types import System


def generator_vote(settings: Settings) -> System:
    """The trained generator alone, by a vote of five."""
    roles = settings.chain[:1]
    return System("generator_mv5", "the trained generator", "trained", "single", roles, 5)
