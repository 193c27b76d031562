"""Rows of questions on disk: Parquet shards that commit atomically, so that a run killed anywhere
goes on where it was. What a row holds is the caller's.

A shard holds a fixed run of the questions and is named after its place among them. So the files
are the same, byte for byte, however many hosts wrote them and however often they were stopped.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from tqdm import tqdm

from malt_jax.runtime import hosts
from malt_jax.runtime.hosts import Part
from malt_jax.types import Question
from malt_jax.workdir import storage

_GROUP = 1024  # rows that are compressed together

Grow = Callable[[Sequence[Question], Callable[[int], Any]], Iterable[list[dict[str, Any]]]]
"""Questions and a progress callback (nodes done) -> the rows of all their nodes, a shard at a
time."""


def grow(
    directory: Path,
    questions: Sequence[Question],
    grow_rows: Grow,
    schema: pa.Schema,
    *,
    per_shard: int,
    nodes_per_question: int,
    title: str,
    part: Part = hosts.ALL,
) -> None:
    """Adds shards of `schema` to `directory` until every question's rows are there. A finished
    question is never asked again.

    `grow_rows` gives the rows of `per_shard` questions at a time; it is asked for those of `part`,
    this host's share of the shards, and all hosts go on when all are done. Raises ValueError naming
    a shard that is damaged, holds other questions, or cannot be seen on this host.
    """
    runs = [questions[i : i + per_shard] for i in range(0, len(questions), per_shard)]
    files = [directory / f"shard-{i:05d}.parquet" for i in range(len(runs))]
    hosts.meet()  # hosts in step must find the same shards, before one of them writes another
    shards = part.of(list(zip(files, runs, strict=True)))
    if part.count > len(files):
        logging.warning(
            "%s: %d shards for %d hosts, so some have nothing to do; with another config.workdir, "
            "lower config.sample.questions_per_shard",
            title,
            len(files),
            part.count,
        )
    pending = [(file, run) for file, run in shards if not _holds(file, run)]
    left = [question for _, run in pending for question in run]
    if left:
        total = sum(len(run) for _, run in shards)
        bar = tqdm(
            total=total * nodes_per_question,
            initial=(total - len(left)) * nodes_per_question,
            desc=title,
            unit="node",
        )
        with bar:
            for (file, _), rows in zip(pending, grow_rows(left, bar.update), strict=True):
                if part.writes:
                    write(file, rows, schema)
    hosts.meet()
    unseen = [file for file in files if not file.exists()]
    if unseen:
        raise ValueError(
            f"{unseen[0]}: written by another host, but not to be seen on this one; "
            "config.workdir must be a file system that all hosts share, or a bucket"
        )


def _holds(file: Path, run: Sequence[Question]) -> bool:
    """Whether a shard is committed. Raises ValueError if it holds other questions."""
    if not file.exists():
        return False
    if {row["question_id"] for row in read_one(file, ["question_id"])} != {q.id for q in run}:
        raise ValueError(
            f"{file}: holds other questions than this run's; delete {file.parent} and run its "
            "stage again"
        )
    return True


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
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
    """The ids of the questions whose rows are committed."""
    return {row["question_id"] for row in read(directory, ["question_id"])}


def paths(directory: Path) -> list[Path]:
    """The committed shards, in order."""
    return sorted(directory.glob("shard-*.parquet"))
