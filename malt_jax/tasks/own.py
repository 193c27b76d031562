"""What users name of their own, in a file or a module: "my_task.py:TASK", "package.module:TASK"."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from malt_jax.config.names import load_module, place_of
from malt_jax.config.places import at_home


def load(spec: str) -> Any:
    """What `spec` names. A relative path starts at the current directory.

    Raises:
        ValueError: naming the file or module that is missing or cannot be loaded, or what it lacks.
    """
    place, _, name = spec.rpartition(":")
    if place.endswith(".py") and not Path(at_home(place)).is_file():
        raise ValueError(f"{place}: no such file in {Path.cwd()}; give the path of a Python file")
    try:
        module = load_module(place)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{place}: cannot be loaded ({why}); correct it") from error
    try:
        return getattr(module, name)
    except AttributeError:
        public = ", ".join(name for name in vars(module) if name[0] != "_") or "nothing"
        raise ValueError(f"{place}: has no {name!r}; it defines {public}") from None


def spec(function: Callable[..., Any]) -> str:
    """What `load` finds a function by, in another process too.

    Raises:
        ValueError: for a function within another, a method, and one of the program that runs.
    """
    name = function.__qualname__
    if "." in name or "<" in name or function.__module__ == "__main__":
        raise ValueError(f"{name}: make it a function of a module's own")
    return place_of(function)
