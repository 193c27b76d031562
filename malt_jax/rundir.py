"""A run's directory: the settings it belongs to, and files written whole or not at all."""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import jax

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


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json` (settings, command, versions, machine), or checks the one that is there.

    Raises ValueError with the differing keys if the directory holds results of other settings.
    """
    path, resolved = workdir / "config.json", json.loads(json.dumps(config))
    if path.exists():
        old, new = _flat(json.loads(path.read_text())["config"]), _flat(resolved)
        changed = [
            f"  config.{key}: {old.get(key)!r} there, {new.get(key)!r} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if changed:
            raise ValueError(
                "\n".join([f"{workdir} holds results of other settings:", *changed])
                + "\nname another --config.workdir, or give the old settings again"
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    write_json(
        path,
        {
            "config": resolved,
            "command": shlex.join(["python", "-m", "malt_jax.main", *sys.argv[1:]]),
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in _PACKAGES},
            "platform": f"{platform.platform()}, {jax.device_count()} x {device.device_kind}",
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "base_hash": "",
        },
    )


def note(workdir: Path, **facts: Any) -> None:
    """Adds facts to `config.json` that only became known during the run."""
    path = workdir / "config.json"
    write_json(path, json.loads(path.read_text()) | facts)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole or not at all: synced as another, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, child in tree.items()
        for key, value in _flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }
