"""`config.json` of a work directory: the settings it belongs to, and what may still be changed."""

import importlib.metadata
import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
from absl import logging

from malt_jax.workdir.storage import files, write_json

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


# The outputs that a key shapes, directly or through one another: while one of them exists, another
# value would contradict it and is refused. The first pattern that fits counts. {role} is the key's
# own; with {phase} it is each role that the key's phase trains, and what its later phases made of
# that counts as well.
_OF_THE_TRAINED_TEAM = ("eval/malt", "eval/critique-other", "eval/critique-none")
_FROM_TREES = ("trees", "datasets", "checkpoints", "export", "eval")
_FROM_TRAINING = ("checkpoints", "export", *_OF_THE_TRAINED_TEAM)
_FROM_A_ROLES_TRAINING = (
    "checkpoints/{role}",
    *("export/{role}", "export/sft/{role}", "export/merged/{role}"),
    *_OF_THE_TRAINED_TEAM,
)
_FROM_A_PHASE = (
    "checkpoints/{role}/{phase}",
    *("export/{role}", "export/{phase}/{role}", "export/merged/{role}"),
    *_OF_THE_TRAINED_TEAM,
)
_BOUND_BY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("workdir", ()),
    ("suite", ()),
    ("mesh.*", ()),
    ("sample.rows", ()),
    ("sample.kv_gib", ()),
    ("eval.equal_compute", ()),  # these two only add
    ("eval.critiques", ()),
    ("eval.single_agent", ()),  # each role's passes have a directory of their own
    ("eval.*", ("eval",)),
    ("wandb", ()),
    ("*.max_nonfinite", ()),
    ("roles.*.train", _FROM_A_ROLES_TRAINING),
    ("roles.*.adapter", _FROM_A_ROLES_TRAINING),
    ("lora.*", _FROM_TRAINING),
    ("sft.*", _FROM_A_PHASE),
    ("dpo.*", _FROM_A_PHASE),
    ("kto.*", _FROM_A_PHASE),
    ("credit.*", _FROM_TRAINING),  # data sets are made anew, and training refuses old ones
    ("*", _FROM_TREES),  # sampling, prompts, data, seed, model, labels
)


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json` (settings, command, versions, machine), or compares with the one there.

    Changed settings that no output depends on yet are taken over; the old values stay in the
    file's `changes`. Raises ValueError with the keys, both values and the directories that depend
    on them where there are such outputs; nothing is written then.
    """
    path, resolved = workdir / "config.json", json.loads(json.dumps(config))
    if path.exists():
        _take_over(path, resolved)
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
            "started": _now(),
            "base_hash": "",
            "changes": [],
        },
    )


def _take_over(path: Path, resolved: dict[str, Any]) -> None:
    """Makes `resolved` the settings of a work directory that has others, if nothing speaks against
    it."""
    record = json.loads(path.read_text())
    old, new = flat(record["config"]), flat(resolved)
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    refused, bound_by = [], set()
    for key in changed:
        outputs = _bound_by(key, record["config"]["roles"])
        if found := [name for name in outputs if _holds_files(path.parent / name)]:
            bound_by |= set(found)
            refused.append(
                f"  config.{key}: {old.get(key)!r} there, {new.get(key)!r} now "
                f"(bound by {', '.join(f'{name}/' for name in found)})"
            )
    if refused:
        raise ValueError(
            "\n".join([f"{path.parent} holds results of other settings:", *refused])
            + "\nname another --config.workdir, give the old settings again, or delete "
            + ", ".join(str(path.parent / name) for name in sorted(bound_by))
        )
    if changed:
        values = {key: {"old": old.get(key), "new": new.get(key)} for key in changed}
        change = {"date": _now(), "command": command(), "config": values}
        changes = [*record.get("changes", []), change]
        write_json(path, record | {"config": resolved, "changes": changes})
        for key in changed:
            logging.info("config.%s: %r, before %r", key, new.get(key), old.get(key))


def _bound_by(key: str, roles: Mapping[str, Any]) -> list[str]:
    """The outputs that depend on a key, as paths below the work directory of a run with `roles`."""
    names = next(names for pattern, names in _BOUND_BY if fnmatchcase(key, pattern))
    group, _, rest = key.partition(".")
    if names is not _FROM_A_PHASE:
        return [name.format(role=rest.partition(".")[0]) for name in names]
    found: dict[str, None] = {}  # each once, in order
    for role, settings in roles.items():
        phases = list(settings["train"])
        later = phases[phases.index(group) :] if group in phases else ()
        found |= {name.format(role=role, phase=one): None for one in later for name in names}
    return list(found)


def _holds_files(directory: Path) -> bool:
    return any(True for _ in files(directory))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | found


def command() -> str:
    """The command line of this process."""
    return shlex.join(["python", "-m", "malt_jax.main", *sys.argv[1:]])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def note(workdir: Path, **facts: Any) -> None:
    """Adds facts to `config.json` that only became known during the run."""
    path = workdir / "config.json"
    write_json(path, json.loads(path.read_text()) | facts)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, child in tree.items()
        for key, value in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }
