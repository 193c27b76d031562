"""`config.json` of a work directory: the settings it belongs to, and what may still be changed."""

import fnmatch
import importlib.metadata
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from malt_jax.workdir import inputs
from malt_jax.workdir.outputs import Bindings
from malt_jax.workdir.storage import files, read_json, write_json

_PACKAGES = (
    "malt-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tokenizers",
    "numpy",
)

FORMAT = 2
"""Of the files in a work directory. Format 1, which a record without one has, stored the values and
labels of samples with them; its samples are read as those of format 2."""


def claim(
    workdir: Path,
    config: Mapping[str, Any],
    bindings: Bindings,
    base: Callable[[], Mapping[str, str]] = dict,
    completed: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Writes `config.json` (settings, command, versions, machine), or compares with the one there.

    Changed settings that no output depends on yet are taken over; the old values stay in the
    file's `changes`. The same content at another path is no other value: `base` gives the hashes of
    the model that `config.model.path` names, by the keys that `config.json` has them under, and is
    only asked where another path stands there. `completed` gives a config of an earlier version the
    settings that it lacks. Raises ValueError with the keys, both values and the
    directories that depend on them where there are such outputs; nothing is written then.
    """
    path, resolved = workdir / "config.json", json.loads(json.dumps(config))
    if path.exists():
        record = read_json(path)
        record["config"] = json.loads(json.dumps(completed(record["config"])))
        _take_over(path, record, resolved, bindings, base)
        return
    device = jax.devices()[0]
    write_json(
        path,
        {
            "format": FORMAT,
            "config": resolved,
            "command": command(),
            "versions": versions(),
            "platform": f"{platform.platform()}, {jax.device_count()} x {device.device_kind}",
            "started": now(),
            "base_hash": "",
            "inputs": inputs.digests(flat(resolved)),
            "changes": [],
        },
    )


def _take_over(
    path: Path,
    record: dict[str, Any],
    resolved: dict[str, Any],
    bindings: Bindings,
    base: Callable[[], Mapping[str, str]],
) -> None:
    """Makes `resolved` the settings of a work directory that has others, if nothing speaks against
    it."""
    old, new = flat(record["config"]), flat(resolved)
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    refused, bound_by = [], set()
    for key in changed:
        if bindings.adds(key, record["config"], resolved):
            continue
        outputs = _bound(path.parent, bindings, key, record)
        if outputs and not same_input(key, new.get(key), record, base):
            bound_by |= set(outputs)
            refused.append(f"{difference(key, old, new)} ({_by(outputs)})")
    noted = record.get("inputs", {})
    # Of questions only those that are asked count: whoever reads them compares them.
    same = new.keys() - set(changed)
    adapters = [key for pattern in inputs.ADAPTERS for key in fnmatch.filter(same, pattern)]
    for key, value in inputs.digests({key: new[key] for key in adapters}).items():
        outputs = _bound(path.parent, bindings, key, record)
        if outputs and noted.get(key, value) != value:
            bound_by |= set(outputs)
            refused.append(
                f"  config.{key}: {new[key]!r} holds other weights than then ({_by(outputs)})"
            )
    if refused:
        raise ValueError(
            "\n".join([f"{path.parent} holds results of other settings:", *refused])
            + "\nname another --config.workdir, give the old settings again, or delete "
            + ", ".join(str(path.parent / name) for name in sorted(bound_by))
        )
    if changed:
        values = {key: {"old": old.get(key), "new": new.get(key)} for key in changed}
        change = {"date": now(), "command": command(), "config": values}
        changes = [*record.get("changes", []), change]
        kept = {key: value for key, value in noted.items() if key not in changed}
        hashed = inputs.digests(new) | kept
        write_json(path, record | {"config": resolved, "inputs": hashed, "changes": changes})
        for key in changed:
            logging.info("config.%s: %r, before %r", key, new.get(key), old.get(key))


def difference(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The line that says how a dotted setting differs."""
    return f"  config.{key}: {before.get(key)!r} there, {now.get(key)!r} now"


def same_input(
    key: str,
    value: Any,
    record: Mapping[str, Any],
    base: Callable[[], Mapping[str, str]] = dict,
) -> bool:
    """Whether a changed setting names what it named in a work directory's `record`: the same files,
    or others of the same content. `base` as in `claim`."""
    recorded = flat(record["config"]).get(key)
    if not inputs.is_path(key):
        return False
    if inputs.place(value) == inputs.place(recorded):
        return True
    if key == "model.path":
        hashes = base() if record.get("base_hash") else {}
        return bool(hashes) and all(record.get(name) == digest for name, digest in hashes.items())
    before = record.get("inputs", {}).get(key) or inputs.digest(key, recorded)
    return bool(before) and inputs.digest(key, value) == before


def changed_inputs(record: Mapping[str, Any]) -> dict[str, str]:
    """By dotted key, the hashes of the files that the settings of a `record` name, where it has
    others of them."""
    noted = record.get("inputs", {})
    hashed = inputs.digests(flat(record["config"]))
    return {key: value for key, value in hashed.items() if noted.get(key, value) != value}


def _bound(workdir: Path, bindings: Bindings, key: str, record: Mapping[str, Any]) -> list[str]:
    """The outputs in a work directory that depend on a setting."""
    outputs = bindings.of(key, record["config"]["roles"])
    return [name for name in outputs if holds_files(workdir, name)]


def _by(outputs: Iterable[str]) -> str:
    return f"bound by {', '.join(f'{name}/' for name in outputs)}"


def holds_files(workdir: Path, name: str) -> bool:
    """Whether there is a file of that output."""
    places = workdir.glob(name) if "*" in name else [workdir / name]
    return any(True for place in places for _ in files(place))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | packages


def command() -> str:
    """The command line of this process."""
    return shlex.join(["python", "-m", "malt_jax.main", *sys.argv[1:]])


def now() -> str:
    """The time in UTC, as records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def note(workdir: Path, **facts: Any) -> None:
    """Adds facts to `config.json` that only became known during the run."""
    path = workdir / "config.json"
    write_json(path, read_json(path) | facts)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, child in tree.items()
        for key, value in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }
