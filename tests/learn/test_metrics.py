"""A figure arrives once, everywhere, also after a run was interrupted."""

import importlib.util
import json
import math
import shutil
import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from malt_jax.learn import metrics


def write(directory, rows, kept=(), project=""):
    how = {"project": project, "title": "run refiner sft", "config": {"seed": 1}}
    with metrics.writing(directory, list(kept), **how) as add:
        for row in rows:
            add(row, False)


def step(i: int, loss: float) -> metrics.Row:
    return {"step": i, "loss": loss, "tokens": 7.0}


def evaluation(i: int, loss: float) -> metrics.Row:
    return {"step": i, "eval": True, "loss": loss, "best": True}


def lines(directory) -> list[metrics.Row]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def scalars(directory) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_a_resumed_run_has_every_step_once(tmp_path):
    """Steps 3 and 4 were after the last checkpoint; they come again with other values."""
    write(tmp_path, [step(1, 0.5), step(2, 0.25), evaluation(2, 8.0), step(3, 99.0), step(4, 99.0)])
    kept = metrics.read(tmp_path / "metrics.jsonl", until=2)
    write(tmp_path, [step(3, 0.125), step(4, 2.0), evaluation(4, 4.0)], kept)
    assert lines(tmp_path) == [
        *(step(1, 0.5), step(2, 0.25), evaluation(2, 8.0)),
        *(step(3, 0.125), step(4, 2.0), evaluation(4, 4.0)),
    ]
    assert scalars(tmp_path) == {
        "train/loss": [(1, 0.5), (2, 0.25), (3, 0.125), (4, 2.0)],
        "train/tokens": [(i, 7.0) for i in (1, 2, 3, 4)],
        "eval/loss": [(2, 8.0), (4, 4.0)],
        "eval/best": [(2, 1.0), (4, 1.0)],
    }


def test_a_run_that_starts_over_leaves_nothing_of_the_old_one(tmp_path, monkeypatch):
    """The second event file is number 10 of this process, and its name comes before number 9's of
    the same second: the new run was read before the one that it replaces."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    write(tmp_path, [step(1, 99.0), step(2, 99.0)])
    write(tmp_path, [step(1, 0.5)])
    assert lines(tmp_path) == [step(1, 0.5)]
    assert scalars(tmp_path)["train/loss"] == [(1, 0.5)]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert metrics.read(path, 9) == []
    path.write_text(json.dumps(step(1, 0.5)) + "\n" + json.dumps(step(2, 0.5))[:-5])
    assert metrics.read(path, 9) == [step(1, 0.5)]


def test_what_is_not_finite_stays_json(tmp_path):
    """`json.dumps` writes NaN, which no other reader takes."""
    write(tmp_path, [step(1, math.nan), step(2, math.inf)])
    assert [row["loss"] for row in lines(tmp_path)] == [None, None]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert math.isnan(scalars(tmp_path)["train/loss"][0][1])


def test_wandb_gets_every_row_under_one_id(tmp_path, monkeypatch):
    calls = []

    def init(**kwargs):
        calls.append(kwargs)
        return SimpleNamespace(
            log=lambda figures, step: calls.append((step, figures)),
            finish=lambda: calls.append("finished"),
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for _ in range(2):
        write(tmp_path, [step(1, 0.5), evaluation(1, 8.0)], project="malt")
    start, *logged, end = calls[:4]
    assert (start["project"], start["name"], start["resume"]) == (
        "malt",
        "run refiner sft",
        "allow",
    )
    assert start["config"] == {"seed": 1}
    assert logged == [
        (1, {"train/loss": 0.5, "train/tokens": 7.0}),
        (1, {"eval/loss": 8.0, "eval/best": 1.0}),
    ]
    assert end == "finished"
    assert calls[4]["id"] == start["id"]
    shutil.rmtree(tmp_path)  # a training anew, or one at the same path of another machine
    write(tmp_path, [step(1, 0.5)], project="malt")
    assert calls[8]["id"] != start["id"]


def test_without_wandb_a_named_project_is_refused(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name)
    )
    metrics.check("")
    with pytest.raises(ValueError, match=r"config.wandb: 'malt', but .* pip install wandb"):
        metrics.check("malt")
