"""Every setting with its default, for the other configs to start from: the paper's choices where
it states them. What each means is said beside it, in `malt_jax/config/settings.py` and in the files
of `malt_jax/learn/phases/`.

Not a recipe: it names no data set. Start from `configs/quickstart.py` instead.
"""

from malt_jax.recipe import base as get_config

__all__ = ["get_config"]
