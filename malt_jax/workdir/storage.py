"""Files and directories that appear whole or not at all, on a disk or in a bucket of an object
store (`gs://BUCKET/...`).

A store's objects appear whole when their upload ends, which is the promise of a file here; but it
renames nothing, so that a directory there counts once its marker is in it, which is written last.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from etils import epath

from malt_jax.config.places import at_home


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError naming the file if it is missing or is something else, is
    larger than such files are, or holds a key twice."""
    check_regular(path)
    try:
        if (length := size(path)) > _MAX_JSON:
            raise ValueError(f"{length:,} bytes, more than {_MAX_JSON:,}")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=distinct)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # text, JSON, and numbers of too many digits
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


_MAX_JSON = 1 << 28


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of these fields. Raises ValueError for a key that stands twice, of which `json`
    takes the last in silence."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the key {name!r} stands twice")
        fields[name] = value
    return fields


def check_regular(path: Path) -> None:
    """Raises ValueError for what is there but is no regular file: a FIFO would be waited for
    without an end."""
    if not in_bucket(path) and path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")


def file_hash(path: Path) -> str:
    """`sha256:` and the digest of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def written_whole(path: Path, *, checked: bool = False) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole or not at all: synced as another, then renamed; in a
    bucket, uploaded when all of it is there.

    With `checked`, a hidden file with its SHA-256 is there before it, as `sha256sum` writes them.
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
    with naming(path), temporary.open("w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        if checked:
            _note_digest(path, file)
    os.replace(temporary, path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an error of the disk the name of the file or directory that is written here. What fails
    on an open file comes without one, and what fails in a library of another language as an error
    of its own that only says so."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (said := _SYSTEM_ERROR.search(str(error))):
            number = int(said[1])
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


# "(os error 5)" in Rust's errors, "[os_error_code='5']" in TensorStore's.
_SYSTEM_ERROR = re.compile(r"\bos[ _]error(?:_code=)?[ ']*(\d+)", re.IGNORECASE)


def way_on(error: BaseException) -> str:
    """What to do about an error of the disk, to be said after it; empty for any other error."""
    ways = {
        errno.EIO: "the disk failed: look after it",
        errno.EROFS: "the disk takes no more writes: look after it",
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
    }
    way = ways.get(getattr(error, "errno", None) or 0)
    return (
        f"\n{way}; what is committed is whole, and the same command goes on from it" if way else ""
    )


def _note_digest(path: Path, content: Any) -> None:
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256").hexdigest()
    with written_whole(_digest_file(path)) as file:
        file.write(f"{digest}  {path.name}\n".encode())


def _digest_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")  # hidden: readers of a folder take all else


def read_checked(path: Path) -> bytes:
    """What a file holds. Raises ValueError naming it if a checksum is there that says
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
    with naming(path):
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def at(path: str) -> Path:
    """The path of a file or directory, on a disk (`~` is the home directory) or (gs://...) in a
    bucket."""
    if "://" not in path:
        return Path(at_home(path))
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
    status: Any = file.stat()
    return int(status.length if in_bucket(file) else status.st_size)


def stamp(file: Path) -> tuple[float, ...] | None:
    """What is another when a file is written anew; None where there is no file."""
    try:
        status: Any = file.stat()
    except FileNotFoundError:
        return None
    if in_bucket(file):
        return status.mtime, status.length
    return status.st_mtime_ns, status.st_size, status.st_ino


def remove(directory: Path) -> None:
    """Removes a directory and all below it."""
    if in_bucket(directory):
        directory.rmtree()  # type: ignore[attr-defined]
    else:
        shutil.rmtree(directory)


def discard(file: Path) -> None:
    """Removes a file that `written_whole` wrote, if it is there, and its checksum."""
    for path in (file, _digest_file(file)):
        path.unlink(missing_ok=True)


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
