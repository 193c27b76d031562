"""Rows of questions that are not on disk yet: asked for shard by shard until all are there, kept
where they end early, and never asked for again.

A shard holds a fixed run of the questions and is named after its place among them. So the files
are the same, byte for byte, however many hosts wrote them and however often they were stopped.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
from absl import logging
from tqdm import tqdm

from malt_jax.runtime import hosts, process
from malt_jax.runtime.hosts import Part
from malt_jax.types import Question
from malt_jax.workdir import storage
from malt_jax.workdir.shards import NAME, Row, read_one, write

Grow = Callable[[Sequence[Question], Callable[[int], Any]], Iterable[list[Row]]]
"""Questions and a progress callback (nodes done) -> all rows of a question, or of several, as soon
as they are known."""
_OVERDUE_SECONDS = 60.0  # a kill that nothing can answer to costs no more


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

    `grow_rows` is asked for the questions of `part`, this host's share of the shards, and all hosts
    go on when all are done. If it ends early, or a signal does, what it gave of shards that are not
    whole is kept beside them as `partial-*.parquet`, and taken up by the next run. Raises
    ValueError naming a shard that is damaged, is none of this run's, or cannot be seen on this
    host.
    """
    runs = [questions[i : i + per_shard] for i in range(0, len(questions), per_shard)]
    files = [directory / f"shard-{i:05d}.parquet" for i in range(len(runs))]
    hosts.meet()  # hosts in step must find the same shards, before one of them writes another
    _check_strays(directory, files)
    shards = part.of(list(zip(files, runs, strict=True)))
    if part.count > len(files):
        logging.warning(
            "%s: %d shards for %d hosts, so some have nothing to do; with another config.workdir, "
            "lower config.sample.questions_per_shard",
            title,
            len(files),
            part.count,
        )
    kept = {path.name for path in directory.glob("partial-*.parquet")}
    pending = []
    for file, run in shards:
        shard = _Pending(file, run)
        if not _holds(file, run):
            pending.append(shard)
            if shard.partial.name in kept:
                _take_up(shard)
        elif part.writes and shard.partial.name in kept:  # of a run killed between the two
            storage.discard(shard.partial)
    total, left = sum(len(run) for _, run in shards), sum(len(shard.left) for shard in pending)
    if pending:
        bar = tqdm(
            total=total * nodes_per_question,
            initial=(total - left) * nodes_per_question,
            desc=title,
            unit="node",
        )
        asked = [question for shard in pending for question in shard.left]
        with bar:
            _fill(pending, grow_rows(asked, bar.update) if asked else (), schema, part.writes)
    hosts.meet()
    unseen = [file for file in files if not file.exists()]
    if unseen:
        raise ValueError(
            f"{unseen[0]}: written by another host, but not to be seen on this one; "
            "config.workdir must be a file system that all hosts share, or a bucket"
        )


@dataclass
class _Pending:
    """A shard that is not committed yet, its questions in order, and the rows of those that are
    done."""

    file: Path
    run: Sequence[Question]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    kept: int = 0  # of `rows`, those in the partial file

    @property
    def partial(self) -> Path:
        """Where they wait for the others of the shard."""
        return self.file.with_name(self.file.name.replace("shard", "partial"))

    @property
    def left(self) -> list[Question]:
        """The questions that are not done."""
        return [question for question in self.run if question.id not in self.rows]


def _take_up(shard: _Pending) -> None:
    """Reads what an earlier run kept of a shard. Raises ValueError if it is of other questions."""
    try:
        kept = _by_question(read_one(shard.partial))
    except ValueError:
        logging.warning("%s: damaged; its questions are asked again", shard.partial)
        return
    _check_questions(shard.partial, kept.keys() - {question.id for question in shard.run})
    shard.rows, shard.kept = kept, len(kept)


def _fill(
    pending: Sequence[_Pending], grown: Iterable[list[Row]], schema: pa.Schema, writes: bool
) -> None:
    """Gives shards their rows as these come. One that is whole is written; what there is of the
    others is kept now and then, and at the end, however that comes."""
    shard_of = {question.id: shard for shard in pending for question in shard.run}
    lock, kept_at = Lock(), time.monotonic()

    def commit(shards: Iterable[_Pending], unfinished: bool) -> None:
        with lock:
            for shard in shards:
                _commit(shard, schema, writes, unfinished)

    with process.deferred(lambda: commit(pending, True)):
        try:
            commit(pending, False)
            for rows in grown:
                for name, of_question in _by_question(rows).items():
                    shard_of[name].rows[name] = of_question
                    commit([shard_of[name]], False)
                if time.monotonic() - kept_at > _OVERDUE_SECONDS:
                    commit(pending, True)
                    kept_at = time.monotonic()
        finally:
            commit(pending, True)


def _by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    of_question: dict[str, list[Row]] = {}
    for row in rows:
        of_question.setdefault(row["question_id"], []).append(row)
    return of_question


def _commit(shard: _Pending, schema: pa.Schema, writes: bool, unfinished: bool) -> None:
    """Writes a shard that is whole, or if `unfinished` what there is of another."""
    done = dict(shard.rows)
    whole = len(done) == len(shard.run)
    if writes and whole:
        write(shard.file, [row for question in shard.run for row in done[question.id]], schema)
        storage.discard(shard.partial)
    elif writes and unfinished and len(done) > shard.kept:
        write(shard.partial, [row for rows in done.values() for row in rows], schema)
        shard.kept = len(done)
    if whole:
        shard.rows, shard.kept = {}, 0


def _check_strays(directory: Path, files: Collection[Path]) -> None:
    """Raises ValueError for a shard that none of `files` is; warns of what is named like one."""
    for path in directory.glob("shard-*.parquet"):
        if not NAME.fullmatch(path.name):
            logging.warning("%s: not the name of a shard; passed over", path)
        elif path not in files:
            raise ValueError(
                f"{path}: none of the {len(files)} shards of this run, and its questions would "
                f"count twice; it was written with another config.sample.questions_per_shard or "
                f"for another run: move it out of {directory}"
            )


def _holds(file: Path, run: Sequence[Question]) -> bool:
    """Whether a shard is committed. Raises ValueError if it holds other questions."""
    if not file.exists():
        return False
    stored = {row["question_id"] for row in read_one(file, ["question_id"])}
    _check_questions(file, stored ^ {question.id for question in run})
    return True


def _check_questions(file: Path, others: Collection[str]) -> None:
    if others:
        raise ValueError(
            f"{file}: holds other questions than this run's shard of that name, {min(others)!r} "
            f"in one of the two alone; name another --config.workdir, or move the file out of "
            f"{file.parent}"
        )
