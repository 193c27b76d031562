"""Trees on disk: Parquet shards that commit atomically, so that a run killed anywhere goes on
where it was.

A shard holds a fixed run of the questions and is named after its place among them. So the files
are the same, byte for byte, however many hosts wrote them and however often they were stopped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from tqdm import tqdm

from malt_jax.runtime import hosts
from malt_jax.runtime.hosts import Part
from malt_jax.types import Question
from malt_jax.workdir import storage

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("role", pa.string()),
        ("path", pa.list_(pa.int32())),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("logprob", pa.float32()),
        ("finish_reason", pa.string()),
        ("answer", pa.string()),
        ("status", pa.string()),
        ("reward", pa.float32()),
        ("value", pa.float32()),
        ("label", pa.bool_()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("completion_token_ids", pa.list_(pa.int32())),
    ]
)

_GROUP = 1024  # rows that are compressed together

Grow = Callable[[Sequence[Question], Callable[[int], Any]], Iterable[list[dict[str, Any]]]]
"""Questions and a progress callback (nodes done) -> rows of SCHEMA for all their nodes, a shard at
a time."""


def grow(
    directory: Path,
    questions: Sequence[Question],
    grow_trees: Grow,
    *,
    per_shard: int,
    nodes_per_question: int,
    title: str,
    part: Part = hosts.ALL,
) -> None:
    """Adds shards to `directory` until every question's tree is there. A finished question is
    never sampled again.

    `grow_trees` gives the rows of `per_shard` questions at a time; it is asked for those of `part`,
    this host's share of the shards, and all hosts go on when all are done. Raises ValueError naming
    a shard that is damaged, holds other questions, or cannot be seen on this host.
    """
    runs = [questions[i : i + per_shard] for i in range(0, len(questions), per_shard)]
    files = [directory / f"shard-{i:05d}.parquet" for i in range(len(runs))]
    hosts.meet()  # hosts in step must find the same shards, before one of them writes another
    own = part.of(list(zip(files, runs, strict=True)))
    if part.count > len(files):
        logging.warning(
            "%s: %d shards for %d hosts, so some have nothing to do; with another config.workdir, "
            "lower config.sample.questions_per_shard",
            title,
            len(files),
            part.count,
        )
    done = [_holds(file, run) for file, run in own]
    pending = [shard for shard, there in zip(own, done, strict=True) if not there]
    left = [question for _, run in pending for question in run]
    if left:
        total = sum(len(run) for _, run in own)
        bar = tqdm(
            total=total * nodes_per_question,
            initial=(total - len(left)) * nodes_per_question,
            desc=title,
            unit="node",
        )
        with bar:
            for (file, _), rows in zip(pending, grow_trees(left, bar.update), strict=True):
                if part.writes:
                    write(file, rows, SCHEMA)
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
    path: Path, columns: Sequence[str] | None = None, *, newer: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of one Parquet file; of the columns that `newer` versions write, those it has.
    Raises ValueError naming the file if it cannot be read, or is not what was written."""
    try:
        content = storage.read_checked(path)
        if columns is not None:
            names = pq.read_schema(pa.BufferReader(content)).names if newer else ()
            columns = [*columns, *(name for name in newer if name in names)]
        return pq.read_table(pa.BufferReader(content), columns=columns).to_pylist()
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); delete the file and run its stage again"
        ) from error


def finished(directory: Path) -> set[str]:
    """The ids of the questions whose trees are committed."""
    return {row["question_id"] for row in read(directory, ["question_id"])}


def paths(directory: Path) -> list[Path]:
    """The committed shards, in order."""
    return sorted(directory.glob("shard-*.parquet"))
