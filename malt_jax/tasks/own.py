"""What users name of their own, in a file or a module: "my_task.py:TASK", "package.module:TASK"."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from malt_jax.config.places import expanded

_PREFIX = "malt_jax_own_"


def load(spec: str) -> Any:
    """What `spec` names. A relative path starts at the current directory; a file is run once.

    Raises:
        ValueError: naming the file or module that is missing or cannot be loaded, or what it lacks.
    """
    place, _, name = spec.rpartition(":")
    module = _of_file(Path(place)) if place.endswith(".py") else _of_name(place)
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
    module = function.__module__
    return f"{sys.modules[module].__file__ if module.startswith(_PREFIX) else module}:{name}"


def _of_file(path: Path) -> ModuleType:
    file = expanded(path).resolve()
    if not file.is_file():
        raise ValueError(f"{path}: no such file in {Path.cwd()}; give the path of a Python file")
    # Named after its place, so that equal names in two folders are two modules.
    name = _PREFIX + hashlib.sha256(str(file).encode()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    description = importlib.util.spec_from_file_location(name, file)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module  # before it runs: dataclasses look themselves up there
    try:
        description.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(_failed(str(path), error)) from error
    return module


def _of_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(_failed(name, error)) from error


def _failed(place: str, error: Exception) -> str:
    return f"{place}: cannot be loaded ({type(error).__name__}: {error}); correct it"
