"""Trees on disk: Parquet shards that commit atomically, so that a run killed anywhere goes on
where it was."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from malt_jax import rundir
from malt_jax.types import Question

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

Grow = Callable[[Sequence[Question], Callable[[int], Any]], Iterable[list[dict[str, Any]]]]
"""Questions and a progress callback (nodes done) -> rows of SCHEMA for all their nodes, a shard at
a time."""


def grow(
    directory: Path,
    questions: Sequence[Question],
    grow_trees: Grow,
    *,
    nodes_per_question: int,
    title: str,
) -> None:
    """Adds shards to `directory` until every question's tree is there. A finished question is
    never sampled again."""
    directory.mkdir(parents=True, exist_ok=True)
    done = finished(directory)
    pending = [question for question in questions if question.id not in done]
    if not pending:
        return
    bar = tqdm(
        total=len(questions) * nodes_per_question,
        initial=(len(questions) - len(pending)) * nodes_per_question,
        desc=title,
        unit="node",
    )
    with bar:
        for rows in grow_trees(pending, bar.update):
            write(directory / f"shard-{_next_index(directory):05d}.parquet", rows, SCHEMA)


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes a Parquet file whole or not at all."""
    with rundir.written_whole(path) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema), file, compression="zstd")


def read(directory: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a directory's shards, shard by shard in order of their names."""
    for path in paths(directory):
        yield from read_one(path, columns)


def read_one(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of one Parquet file. Raises ValueError naming the file if it cannot be read."""
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); delete the file and run its stage again"
        ) from error
    return table.to_pylist()


def finished(directory: Path) -> set[str]:
    """The ids of the questions whose trees are committed."""
    return {row["question_id"] for row in read(directory, ["question_id"])}


def paths(directory: Path) -> list[Path]:
    """The committed shards, in order."""
    return sorted(directory.glob("shard-*.parquet"))


def _next_index(directory: Path) -> int:
    last = paths(directory)[-1:]
    return int(last[0].stem.removeprefix("shard-")) + 1 if last else 0
