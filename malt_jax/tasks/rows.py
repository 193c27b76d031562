"""Rows of a file or a hub dataset, each with the place it stands in."""

import json
from collections.abc import Iterator
from pathlib import Path

from malt_jax.tasks.task import Hub, Row

SUFFIXES = (".jsonl", ".json", ".parquet")


def read_rows(path: str, hub: Hub | None, split: str) -> Iterator[tuple[str, Row]]:
    """Yields (place, row) of a local file, of a hub dataset, or of `hub` where `path` is empty.

    Raises:
        ValueError: for a path that is neither, and for malformed content, naming its place.
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


def read_file(path: Path) -> Iterator[tuple[str, Row]]:
    """Yields (place, row) of a JSON-lines file, a JSON file holding a list, or a Parquet file."""
    match path.suffix:
        case ".jsonl":
            yield from _read_lines(path)
        case ".json":
            yield from _read_list(path)
        case ".parquet":
            yield from _read_parquet(path)
        case _:
            raise ValueError(f"{path}: not one of {', '.join(SUFFIXES)}; convert or rename it")


def _read_lines(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}:{number}"
                yield place, _as_row(_parse(line, place), place)


def _read_list(path: Path) -> Iterator[tuple[str, Row]]:
    rows = _parse(path.read_bytes(), str(path))
    if not isinstance(rows, list):
        raise ValueError(f"{path}: holds a {type(rows).__name__}; make it a list of objects")
    for index, row in enumerate(rows):
        place = f"{path}, entry {index}"
        yield place, _as_row(row, place)


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: unreadable Parquet ({error}); fetch it again") from error
    for index, row in enumerate(rows):
        yield f"{path}, row {index}", row


def _read_hub(hub: Hub, split: str) -> Iterator[tuple[str, Row]]:
    from datasets import load_dataset

    name = hub.splits.get(split, split)
    for index, row in enumerate(load_dataset(hub.path, hub.config, split=name)):
        yield f"{hub.path} {name}, row {index}", row


def _parse(content: bytes, place: str) -> object:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 ({error}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        where = place if place.rpartition(":")[2].isdigit() else f"{place}:{error.lineno}"
        raise ValueError(
            f"{where}: broken JSON at column {error.colno} ({error.msg}); correct or remove it"
        ) from error


def _as_row(row: object, place: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: holds a {type(row).__name__}; make it an object with fields")
    return row
