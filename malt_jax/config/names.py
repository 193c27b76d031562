"""Names that a user gives: the close one where there is none of that name, and objects of the
user's own."""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from malt_jax.config.places import at_home

_OF_FILES = "malt_jax_own_"  # what the modules of files are called


def closest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant: one in almost the same letters, one of which these are the
    initials (`lr` for `learning_rate`), or the only one of which they are a part."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, 1, cutoff=0.7):
        return close[0]
    if short := [full for full in names if _initials(full) == name]:
        return short[0]
    parts = [full for full in names if name in full]
    if len(parts) == 1:
        return parts[0]
    return next(iter(difflib.get_close_matches(name, names, 1)), None)


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def choices(name: str, known: Iterable[str]) -> str:
    """What to say after a name that does not exist: the one that was probably meant, or all of
    them."""
    names = list(known)
    close = closest(name, names)
    return f"did you mean {close}?" if close else f"choose from {', '.join(names)}"


def load_object(place: str, key: str) -> Any:
    """An object of the user's own, at FILE.py:NAME or package.module:NAME.

    Raises ValueError naming `key`, the setting or flag that it comes from, if there is no such file
    or module, if it does not import, and if nothing in it has that name.
    """
    source, _, name = place.rpartition(":")
    try:
        module = load_module(source)
    except Exception as error:
        raise ValueError(f"{key}: {source} does not import: {error!r}") from error
    if not hasattr(module, name):
        raise ValueError(f"{key}: {source} has no {name!r}; {choices(name, vars(module))}")
    return getattr(module, name)


def load_module(source: str) -> ModuleType:
    """The module of a name, or of the path of a Python file, relative to the current directory. A
    file is run once, unless it changes. Raises FileNotFoundError, and whatever the module does."""
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(at_home(source)).resolve()
    # Named after its place, so that equal names in two folders are two modules.
    digest = hashlib.sha256(f"{path}\0".encode() + path.read_bytes()).hexdigest()
    name = _OF_FILES + digest[:16]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def place_of(function: Callable[..., Any]) -> str:
    """FILE.py:NAME or package.module:NAME of a function of a module's own."""
    name = function.__module__
    source = sys.modules[name].__file__ if name.startswith(_OF_FILES) else name
    return f"{source}:{function.__qualname__}"
