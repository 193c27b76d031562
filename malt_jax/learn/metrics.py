"""Where the figures of a phase go: `metrics.jsonl`, TensorBoard's event files beside it, and
Weights & Biases where a project is named."""

import importlib
import importlib.util
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from malt_jax.runtime import hosts
from malt_jax.workdir import storage

Row = dict[str, Any]
"""`step` (1 is the first, 0 before it) and figures by name; `eval` is True in the rows of held-out
evaluations."""
Write = Callable[[Row, bool], None]
"""Writes a row; with True it is on the disk, or in the bucket, when that returns."""


def check(project: str) -> None:
    """Raises ValueError if `config.wandb` names a project and wandb is not installed."""
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.wandb: {project!r}, but wandb is not installed; pip install wandb, or leave "
            "config.wandb empty"
        )


def read(path: Path, until: int) -> list[Row]:
    """The rows of a `metrics.jsonl` up to step `until`, without what a kill cut short; none where
    there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] > until:
            break
        rows.append(row)
    return rows


@contextmanager
def writing(
    directory: Path,
    kept: list[Row],
    *,
    project: str,
    title: str,
    config: Mapping[str, Any],
) -> Iterator[Write]:
    """A function that writes a row everywhere.

    Of what `directory` holds only the rows `kept` (of `read`) stay, in `metrics.jsonl` and to
    TensorBoard's eyes: a resumed run writes those after them again. In metrics.jsonl a figure that
    is not finite is null, for JSON knows no other. `project`, `title` and `config` are W&B's. Of
    several hosts the first one writes.
    """
    if not hosts.first():
        yield lambda row, lasts: None
        return
    done = kept[-1]["step"] if kept else 0
    earlier = [file.name for file in storage.files(directory / "tensorboard")]
    with storage.appending(directory) as (local, bring_over):
        path = local / "metrics.jsonl"
        temporary = path.with_name(path.name + ".tmp")
        with storage.naming(path):
            temporary.write_text("".join(_line(row) for row in kept))
        os.replace(temporary, path)
        with storage.naming(local / "tensorboard"):
            events = _events(local / "tensorboard", done, earlier)
        online = _wandb(directory, project, title, config) if project else None
        with path.open("a") as lines:

            def write(row: Row, lasts: bool) -> None:
                with storage.naming(path):
                    lines.write(_line(row))
                    lines.flush()
                    if lasts:
                        os.fsync(lines.fileno())
                with storage.naming(local / "tensorboard"):
                    events.add_event(_event(row))
                    if lasts:
                        events.flush()
                if online is not None:
                    online.log(_figures(row), step=row["step"])
                if lasts:
                    bring_over()

            try:
                yield write
            finally:
                events.close()
                if online is not None:
                    online.finish()


def _event(row: Row) -> event_pb2.Event:
    values = [
        summary_pb2.Summary.Value(tag=name, simple_value=value)
        for name, value in _figures(row).items()
    ]
    summary = summary_pb2.Summary(value=values)
    return event_pb2.Event(wall_time=time.time(), step=row["step"], summary=summary)


def _events(directory: Path, done: int, earlier: list[str]) -> EventFileWriter:
    """A new event file. Where there are `earlier` ones, its first event says that steps after
    `done` of theirs do not count (SessionLog.START, the `purge_step` of other writers)."""
    # Readers go by the files' names, which tell no order within a second.
    while any(f".{int(time.time())}." in name for name in earlier):
        time.sleep(0.05)
    writer = EventFileWriter(str(directory))
    if earlier:
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=done + 1, session_log=start))
    return writer


def _wandb(directory: Path, project: str, title: str, config: Mapping[str, Any]) -> Any:
    """The W&B run of this directory, new or resumed. The key is W&B's own affair (`wandb login` or
    its environment variable); it never passes through the config."""
    # Kept with the training: the same path on another machine, or after a fresh start, is another.
    file = directory / "wandb_run.txt"
    if not file.exists():
        with storage.written_whole(file) as stream:
            stream.write(secrets.token_hex(8).encode())
    return importlib.import_module("wandb").init(
        project=project,
        name=title,
        id=file.read_text(),
        resume="allow",
        dir=str(directory),
        config=dict(config),
    )


def _figures(row: Row) -> dict[str, float]:
    prefix = "eval" if row.get("eval") else "train"
    return {
        f"{prefix}/{name}": float(value)
        for name, value in row.items()
        if name not in ("step", "eval")
    }


def _line(row: Row) -> str:
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"
