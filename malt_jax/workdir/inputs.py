"""The files that settings name: the same one under another name is no other setting."""

import hashlib
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from malt_jax.config.places import at_home, located
from malt_jax.workdir.storage import file_hash, files, in_bucket

# The settings that name files or directories. An item of data.exclude is TASK:PATH.
ADAPTERS = ("roles.*.adapter", "rounds.behaviour")
_PATHS = ("model.path", "data.train", "data.eval", "data.exclude", "trees", *ADAPTERS)
# Those whose content is hashed when a work directory is claimed. The base has its own hash there.
_HASHED = ("data.train", "data.eval", "data.exclude", "trees", *ADAPTERS)


def is_path(key: str) -> bool:
    """Whether a dotted setting names files."""
    return _fits(key, _PATHS)


def place(value: Any) -> Any:
    """What a setting of `is_path` names, however it is spelt: absolute or relative, with a link, a
    `~` or a slash at the end."""
    if isinstance(value, list | tuple):
        items = (str(item).rpartition(":") for item in value)
        return [f"{task}:{place(path)}" for task, _, path in items]
    if not value or in_bucket(value):
        return (value or "").rstrip("/")
    return os.path.realpath(located(value))


def digests(settings: dict[str, Any]) -> dict[str, str]:
    """By dotted key, the hashes of the files that settings name; a hub id has none."""
    hashed = {key: digest(key, value) for key, value in settings.items() if _fits(key, _HASHED)}
    return {key: value for key, value in hashed.items() if value}


def digest(key: str, value: Any) -> str:
    """`sha256:` and the digest of what a setting's files hold, whatever they are called; of a
    directory, with the names below it, and of another work directory that of its trees (`trees`) or
    of its exported adapters (`rounds.behaviour`). Empty where a setting names no file of a disk."""
    if key == "trees":
        return "" if not value or in_bucket(value) else _trees(Path(at_home(value)))
    if key == "rounds.behaviour":
        return "" if not value or in_bucket(value) else _exported(Path(at_home(value)))
    paths = [item.rpartition(":")[2] for item in value] if isinstance(value, list) else [value]
    named = [Path(at_home(path)) for path in paths if path and not in_bucket(path)]
    if not named or len(named) < len(paths) or not all(path.exists() for path in named):
        return ""
    return _joined(_directory(path) if path.is_dir() else file_hash(path) for path in named)


def _directory(path: Path) -> str:
    return _joined(f"{file.relative_to(path)} {file_hash(file)}" for file in files(path))


def _trees(workdir: Path) -> str:
    """By the checksums beside its shards, which are gigabytes."""
    noted = sorted((workdir / "trees").glob(".shard-*.sha256"))
    return _joined(file.read_text() for file in noted) if noted else ""


def _exported(workdir: Path) -> str:
    weights = sorted(workdir.glob("export/*/*.safetensors"))
    return _joined(f"{file.parent.name} {file_hash(file)}" for file in weights) if weights else ""


def _joined(lines: Iterable[str]) -> str:
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _fits(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)
