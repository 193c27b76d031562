"""A run's directory: the settings it belongs to, and files written whole or not at all.

It lies on a disk, or in a bucket of an object store (`gs://BUCKET/...`). A store's objects appear
whole when their upload ends, which is the promise of a file here; but it renames nothing, so that a
directory there counts once its marker is in it, which is written last.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import jax
from absl import logging
from etils import epath

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


# The outputs that a key shapes, directly or through one another: while one of them exists, another
# value would contradict it and is refused. The first pattern that fits counts; {role} is the key's
# own.
_FROM_TREES = ("trees", "datasets", "checkpoints", "export", "eval")
_FROM_DATASETS = ("datasets", "checkpoints", "export", "eval/malt")
_FROM_TRAINING = ("checkpoints", "export", "eval/malt")
_FROM_A_ROLES_TRAINING = (
    "checkpoints/{role}",
    "export/{role}",
    "export/merged/{role}",
    "eval/malt",
)
_BOUND_BY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("workdir", ()),
    ("suite", ()),
    ("mesh.*", ()),
    ("sample.rows", ()),
    ("sample.kv_gib", ()),
    ("eval.equal_compute", ()),  # these two only add
    ("eval.critiques", ()),
    ("eval.*", ("eval",)),
    ("wandb", ()),
    ("*.max_nonfinite", ()),
    ("roles.*.train", _FROM_A_ROLES_TRAINING),
    ("roles.*.adapter", _FROM_A_ROLES_TRAINING),
    ("lora.*", _FROM_TRAINING),
    ("sft.*", _FROM_TRAINING),
    ("dpo.*", _FROM_TRAINING),
    ("kto.*", _FROM_TRAINING),
    ("credit.max_*", _FROM_DATASETS),
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
            "config": resolved,
            "command": _command(),
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
        if found := [name for name in _bound_by(key) if _holds_files(path.parent / name)]:
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
        change = {"date": _now(), "command": _command(), "config": values}
        changes = [*record.get("changes", []), change]
        write_json(path, record | {"config": resolved, "changes": changes})
        for key in changed:
            logging.info("config.%s: %r, before %r", key, new.get(key), old.get(key))


def _bound_by(key: str) -> list[str]:
    """The outputs that depend on a key, as paths below the work directory."""
    names = next(names for pattern, names in _BOUND_BY if fnmatchcase(key, pattern))
    return [name.format(role=key.split(".")[1]) if "{role}" in name else name for name in names]


def _holds_files(directory: Path) -> bool:
    return any(True for _ in files(directory))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | found


def _command() -> str:
    return shlex.join(["python", "-m", "malt_jax.main", *sys.argv[1:]])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def note(workdir: Path, **facts: Any) -> None:
    """Adds facts to `config.json` that only became known during the run."""
    path = workdir / "config.json"
    write_json(path, json.loads(path.read_text()) | facts)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def written_whole(path: Path, *, checked: bool = False) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole or not at all: synced as another, then renamed; in a
    bucket, uploaded when all of it is there.

    With `checked`, `path` + ".sha256" is there before it, in the form that sha256sum reads.
    """
    if in_bucket(path):
        with tempfile.TemporaryFile() as local:
            yield local
            if checked:
                _note_digest(path, local)
            local.seek(0)
            with path.open("wb") as target:
                shutil.copyfileobj(local, target)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        if checked:
            _note_digest(path, file)
    os.replace(temporary, path)


def _note_digest(path: Path, content: BinaryIO) -> None:
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256").hexdigest()
    with written_whole(_digest_file(path)) as file:
        file.write(f"{digest}  {path.name}\n".encode())


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def read_checked(path: Path) -> bytes:
    """What a file holds. Raises ValueError naming it if its ".sha256" is there and says
    otherwise."""
    content = path.read_bytes()
    noted = _digest_file(path)
    if noted.exists() and noted.read_text().split()[:1] != [hashlib.sha256(content).hexdigest()]:
        raise ValueError(f"{path}: damaged, its checksum differs from that in {noted.name}")
    return content


@contextmanager
def directory_whole(path: Path, marker: str) -> Iterator[Path]:
    """A directory that appears at `path` whole or not at all: filled as another, synced, renamed.

    What stands at `path` is replaced at the end, not before. In a bucket, whose directories are not
    renamed, the file `marker` is removed first and written last: the directory is there once that
    is.
    """
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as local:
            yield Path(local)
            (path / marker).unlink(missing_ok=True)
            for file in sorted(Path(local).iterdir(), key=lambda file: file.name == marker):
                _upload(file, path / file.name)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    temporary.mkdir(parents=True)
    yield temporary
    for file in temporary.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def at(path: str) -> Path:
    """The path of a file or directory, on a disk or (gs://...) in a bucket."""
    if "://" not in path:
        return Path(path)
    # What other hosts write must be seen.
    for scheme in ("gs", "gcs", "s3"):
        fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    return epath.Path(path)


def in_bucket(path: Path) -> bool:
    """Whether a path is an object store's. Such paths do what `Path` does, but for appending,
    locking and renaming."""
    return "://" in str(path)


def absolute(path: Path) -> Path:
    """The path from the root of its disk or store."""
    return path if in_bucket(path) else path.absolute()


def files(directory: Path) -> Iterator[Path]:
    """The files below a directory, in order; none if it is not there."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def size(file: Path) -> int:
    """A file's bytes."""
    found: Any = file.stat()
    return int(found.length if in_bucket(file) else found.st_size)


def remove(directory: Path) -> None:
    """Removes a directory and all below it."""
    if in_bucket(directory):
        directory.rmtree()  # type: ignore[attr-defined]
    else:
        shutil.rmtree(directory)


@contextmanager
def on_disk(directory: Path) -> Iterator[Path]:
    """The files of a directory on a disk, for libraries that read from nowhere else."""
    if not in_bucket(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory() as local:
        for file in directory.iterdir():
            if not file.is_dir():
                (Path(local) / file.name).write_bytes(file.read_bytes())
        yield Path(local)


@contextmanager
def appending(directory: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A directory whose files may be appended to, and a function that makes `directory` hold what
    was written so far. On a disk that is the directory itself; in a bucket, where objects are only
    written whole, a copy of what is new."""
    if not in_bucket(directory):
        directory.mkdir(parents=True, exist_ok=True)
        yield directory, lambda: None
        return
    with tempfile.TemporaryDirectory() as local:

        def bring_over() -> None:
            for file in files(Path(local)):
                _upload(file, directory / file.relative_to(local).as_posix())

        try:
            yield Path(local), bring_over
        finally:
            bring_over()


def _upload(file: Path, target: Path) -> None:
    with file.open("rb") as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, child in tree.items()
        for key, value in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }
