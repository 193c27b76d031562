"""What stages leave below a work directory, and which settings shape it, directly or through one
another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Output:
    """A file or directory that a stage leaves below the work directory.

    `path` may hold `{role}` and `{phase}`: there is one for every role, or for every phase that a
    role trains. `keys` are patterns of the settings that shape it directly, and `needs` patterns of
    the paths it is made from; both may hold the same fields, and `needs` also `{earlier}`, the
    phases that the role trains before this one. Patterns are `fnmatch`'s; * crosses a slash.
    """

    path: str
    keys: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bindings:
    """Which outputs depend on which settings: what all stages declare together.

    `free` are patterns of the settings that shape no output, whatever `outputs` say: where and on
    how many devices the work is done. `adds` says of a dotted key whether its change from one
    config to another leaves all outputs as they are and only adds to them.
    """

    outputs: tuple[Output, ...]
    free: tuple[str, ...] = ()
    adds: Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool] = lambda key, old, new: False

    def of(self, key: str, roles: Mapping[str, Any]) -> list[str]:
        """The outputs that depend on a dotted key, as paths below the work directory of a run with
        the config's `roles`, in the order of declaration. A directory stands for all that is
        declared below it where all of that depends on the key."""
        if any(fnmatchcase(key, pattern) for pattern in self.free):
            return []
        declared = [place for output in self.outputs for place in _places(output, roles)]
        bound: set[str] = set()
        reached = {place.path for place in declared if _fits(key, place.keys)}
        while reached:
            bound |= reached
            reached = {
                place.path
                for place in declared
                if place.path not in bound and any(_fits(path, place.needs) for path in bound)
            }
        return _shortest([place.path for place in declared], bound)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _places(output: Output, roles: Mapping[str, Any]) -> Iterator[Output]:
    """An output of every role and phase that has it."""
    if "{role}" not in output.path:
        yield output
        return
    for role, settings in roles.items():
        phases = tuple(settings["train"]) if "{phase}" in output.path else ("",)
        for i, phase in enumerate(phases):
            fields = {"role": role, "phase": phase}
            yield Output(
                output.path.format(**fields),
                tuple(key.format(**fields) for key in output.keys),
                tuple(
                    need.format(**fields, earlier=earlier)
                    for need in output.needs
                    for earlier in (phases[:i] if "{earlier}" in need else ("",))
                ),
            )


def _shortest(declared: Sequence[str], bound: set[str]) -> list[str]:
    """`bound`, each path or the first directory above it below which everything is bound."""
    shortest: dict[str, None] = {}  # each once, in order
    for path in declared:
        if path not in bound:
            continue
        parts = path.split("/")
        above = ("/".join(parts[: i + 1]) for i in range(len(parts)))
        shortest[next(place for place in above if _holds_only(place, declared, bound))] = None
    return list(shortest)


def _holds_only(place: str, declared: Sequence[str], bound: set[str]) -> bool:
    below = (path for path in declared if f"{path}/".startswith(f"{place}/"))
    return all(path in bound for path in below)
