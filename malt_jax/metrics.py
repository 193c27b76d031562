"""Where the figures of a phase go: `metrics.jsonl`, TensorBoard's event files beside it, and
Weights & Biases where a project is named."""

import hashlib
import importlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from malt_jax import hosts

Row = dict[str, Any]
"""`step` (1 is the first) and figures by name; `eval` is True in the rows of held-out
evaluations."""
Write = Callable[[Row], None]


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
    directory: Path, kept: list[Row], *, project: str, title: str, config: Mapping[str, Any]
) -> Iterator[Write]:
    """A function that writes a row everywhere.

    Of what `directory` holds only the rows `kept` (of `read`) stay, in `metrics.jsonl` and to
    TensorBoard's eyes: a resumed run writes those after them again. In metrics.jsonl a figure that
    is not finite is null, for JSON knows no other. `project`, `title` and `config` are W&B's. Of
    several hosts the first one writes.
    """
    if not hosts.first():
        yield lambda row: None
        return
    directory.mkdir(parents=True, exist_ok=True)
    done = kept[-1]["step"] if kept else 0
    path = directory / "metrics.jsonl"
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(_line(row) for row in kept))
    os.replace(temporary, path)
    events = _events(directory / "tensorboard", done)
    online = _wandb(directory, project, title, config) if project else None
    with path.open("a") as lines:

        def write(row: Row) -> None:
            lines.write(_line(row))
            lines.flush()
            figures = _figures(row)
            values = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in figures.items()]
            summary = summary_pb2.Summary(value=values)
            events.add_event(
                event_pb2.Event(wall_time=time.time(), step=row["step"], summary=summary)
            )
            if online is not None:
                online.log(figures, step=row["step"])
            if row.get("eval"):
                # The best checkpoint so far is read from these lines when a run is resumed.
                os.fsync(lines.fileno())
                events.flush()

        try:
            yield write
        finally:
            events.close()
            if online is not None:
                online.finish()


def _events(directory: Path, done: int) -> EventFileWriter:
    """A new event file. Where others lie, its first event says that steps after `done` of theirs
    do not count (SessionLog.START, the `purge_step` of other writers)."""
    resumed = directory.exists()
    writer = EventFileWriter(str(directory))
    if resumed:
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=done + 1, session_log=start))
    return writer


def _wandb(directory: Path, project: str, title: str, config: Mapping[str, Any]) -> Any:
    """The W&B run of this directory, new or resumed. The key is W&B's own affair (`wandb login` or
    its environment variable); it never passes through the config."""
    identity = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
    return importlib.import_module("wandb").init(
        project=project,
        name=title,
        id=identity,
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
