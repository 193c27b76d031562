"""MALT in JAX: three language-model agents trained as a team (arXiv 2412.01928).

`python -m malt_jax.main --config=quickstart` runs the whole method; what is imported from here are
its parts: `load`, `sample`, `team`, `grow`, `propagate`, `rows`, `train`, `solve`. They are
imported when they are first asked for, so that `import malt_jax` costs nothing.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malt_jax.api import (
        Adapter,
        Model,
        Question,
        Role,
        Solution,
        Team,
        grow,
        load,
        propagate,
        rows,
        sample,
        solve,
        team,
        train,
    )

__all__ = [
    "Adapter",
    "Model",
    "Question",
    "Role",
    "Solution",
    "Team",
    "grow",
    "load",
    "propagate",
    "rows",
    "sample",
    "solve",
    "team",
    "train",
]


def __getattr__(name: str) -> Any:
    """The public names and `__version__`, when they are first asked for."""
    if name == "__version__":
        return importlib.metadata.version("malt-jax")
    if name not in __all__:
        raise AttributeError(f"malt_jax has no {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module("malt_jax.api"), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
