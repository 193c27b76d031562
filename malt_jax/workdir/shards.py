"""Rows of questions on disk: Parquet shards that appear whole or not at all. What a row holds is
the caller's; `growth` adds the shards that are missing."""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from malt_jax.workdir import storage

Row = dict[str, Any]
NAME = re.compile(r"shard-\d{5,}\.parquet")  # of a committed shard
_GROUP = 1024  # rows that are compressed together


def write(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    """Writes a Parquet file whole or not at all."""
    with storage.written_whole(path, checked=True) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema), file, compression="zstd")


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[Sequence[dict[str, Any]]], None]]:
    """A function that adds rows to a Parquet file, which appears at the end, whole or not at all.
    Few of them are in memory at a time."""
    waiting: list[pa.Table] = []
    with (
        storage.written_whole(path, checked=True) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):

        def flush(least: int) -> None:
            if sum(map(len, waiting)) >= least:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()

        def add(rows: Sequence[dict[str, Any]]) -> None:
            waiting.append(pa.Table.from_pylist(list(rows), schema))
            flush(_GROUP)

        yield add
        if waiting:
            flush(0)


def read(directory: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a directory's shards, shard by shard in order of their names."""
    for path in paths(directory):
        yield from read_one(path, columns)


def read_one(
    path: Path,
    columns: Sequence[str] | None = None,
    optional: Collection[str] = (),
    arrays: str = "",
) -> list[dict[str, Any]]:
    """The rows of one Parquet file, all columns or those of `columns`, of which the `optional` ones
    are left out where the file has none. Columns whose names end with `arrays`, if that is given,
    hold numpy arrays in place of lists: a number of a list takes ten times its memory.

    Raises ValueError naming the file if it cannot be read, is not what was written, or lacks a
    column.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_checked(path)))
        stored = file.schema_arrow.names
        wanted = stored if columns is None else columns
        if lacking := sorted(set(wanted) - set(stored) - set(optional)):
            raise ValueError(f"it lacks the columns {lacking}")
        table = file.read([c for c in wanted if c in stored])
        names = table.column_names
        content = [
            _arrays(table[name]) if arrays and name.endswith(arrays) else table[name].to_pylist()
            for name in names
        ]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*content, strict=True)]
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); delete the file and run its stage again"
        ) from error
    return rows


def _arrays(column: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """The lists of a column as arrays, all of them views of the column's own numbers."""
    for chunk in column.chunks:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        for start, end in itertools.pairwise(offsets):
            yield values[start:end]


def finished(directory: Path) -> set[str]:
    """The ids of the questions whose rows are committed. Raises ValueError as `distinct` does."""
    shard_of: dict[str, Path] = {}
    for path in paths(directory):
        distinct(shard_of, path, read_one(path, ["question_id"]))
    return set(shard_of)


def distinct(shard_of: dict[str, Path], path: Path, rows: Iterable[Row]) -> None:
    """Adds the questions of a shard's `rows` to those of the shards before it. Raises ValueError
    naming both for one that two of them hold: a copy, or a shard of another size."""
    for name in {row["question_id"] for row in rows}:
        if (other := shard_of.setdefault(name, path)) != path:
            raise ValueError(
                f"{path}: holds question {name!r}, as does {other.name}, which would count twice; "
                f"move the one that is no part of this run out of {path.parent}"
            )


def paths(directory: Path) -> list[Path]:
    """The committed shards, in order."""
    return sorted(path for path in directory.glob("shard-*.parquet") if NAME.fullmatch(path.name))
