"""Rows of a file or a hub dataset, each with the place it stands in."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from malt_jax.tasks.task import Hub, Row

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
MAX_LINE = 1 << 20  # bytes; a longer line is not read whole, let alone parsed


class Malformed(NamedTuple):
    """A row that cannot be one: why, and how it begins."""

    reason: str
    text: str


Rows = Iterator[tuple[str, Row | Malformed]]
"""(place, row) of every row."""


def read_rows(path: str, hub: Hub | None, split: str) -> Rows:
    """The rows of a local file, of a hub dataset, or of `hub` where `path` is empty.

    Raises:
        ValueError: for a path that is neither, and for a file that cannot be read as a whole.
    """
    if Path(path).is_file():
        yield from read_file(Path(path))
    elif path.endswith(SUFFIXES) or (path and Path(path).exists()):
        raise ValueError(f"{path}: no such file; give a {', '.join(SUFFIXES)} file or a hub id")
    elif path and (hub is None or path != hub.path):
        yield from _read_hub(Hub(path, None, {}), split)
    elif hub is None:
        raise ValueError(f"this task has no hub dataset; give a {', '.join(SUFFIXES)} file")
    else:
        yield from _read_hub(hub, split)


def read_file(path: Path) -> Rows:
    """The rows of a JSON-lines file, a JSON file holding a list, or a Parquet file."""
    match "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix:
        case ".jsonl":
            with path.open("rb") as lines:
                yield from _read_lines(path, lines)
        case ".jsonl.gz":
            yield from _read_compressed(path)
        case ".json":
            yield from _read_list(path)
        case ".parquet":
            yield from _read_parquet(path)
        case _:
            raise ValueError(f"{path}: not one of {', '.join(SUFFIXES)}; convert or rename it")


def _read_compressed(path: Path) -> Rows:
    try:
        with gzip.open(path) as lines:
            yield from _read_lines(path, cast(BinaryIO, lines))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: unreadable gzip ({error}); fetch it again") from error


def _read_lines(path: Path, file: BinaryIO) -> Rows:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        head, size = line, len(line)
        while not line.endswith(b"\n") and (line := file.readline(MAX_LINE)):
            size += len(line)
        if size > MAX_LINE + 1:
            fault = f"a line of {size} bytes; {MAX_LINE} are the most"
            yield f"{path}:{number}", Malformed(fault, _shown(head))
        elif head.strip():
            yield f"{path}:{number}", _row_of_line(head)


def _row_of_line(line: bytes) -> Row | Malformed:
    try:
        return _as_row(_parse(line.strip()))
    except ValueError as error:
        return Malformed(str(error), _shown(line))


def _read_list(path: Path) -> Rows:
    try:
        rows = _parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; correct it or fetch it again") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: holds a {type(rows).__name__}; make it a list of objects")
    for index, row in enumerate(rows):
        yield f"{path}, entry {index}", _as_row(row)


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"{path}: unreadable Parquet ({error}); fetch it again") from error
    for index, row in enumerate(rows):
        yield f"{path}, row {index}", row


def _read_hub(hub: Hub, split: str) -> Rows:
    from datasets import load_dataset

    name = hub.splits.get(split, split)
    for index, row in enumerate(load_dataset(hub.path, hub.config, split=name)):
        yield f"{hub.path} {name}, row {index}", row


def _parse(content: bytes) -> object:
    """Raises ValueError for what is not JSON in UTF-8, or nested or written beyond reason."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error})") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"broken JSON at {where}column {error.colno} ({error.msg})") from error
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error


def _as_row(row: object) -> Row | Malformed:
    if isinstance(row, dict):
        return row
    return Malformed(f"holds a {type(row).__name__}, not an object with fields", _shown(row))


def _shown(content: object) -> str:
    """The beginning of what stands there, for a person to find it by."""
    text = content[:200].decode("utf-8", "replace") if isinstance(content, bytes) else repr(content)
    return text[:80].strip()
