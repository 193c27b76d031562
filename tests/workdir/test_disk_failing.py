"""A disk that fails once, wherever a run writes: the run stops with the cause and the file, and
goes on from what is whole to the same end."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import pytest
from benchmarks.scaling import instant
from recipes import change, good
from whole import ROOT, TINY, command, products, run

from malt_jax import report
from malt_jax.evaluate import audit, evaluation
from malt_jax.learn import datasets, metrics
from malt_jax.recipe import parse
from malt_jax.stages import claim, collect, job, train
from malt_jax.types import Question
from malt_jax.workdir import checkpoints, lock, storage

QUESTIONS = [Question(f"q{i}", f"{i}-{i}", "0") for i in range(4)]
CHANGES = {
    "model.path": str(TINY),
    "chain": ("generator",),
    "roles.generator.train": ("sft",),
    "sample.questions_per_shard": 2,
    "eval.systems": ("sa", "sa_mv"),
    "eval.equal_compute": False,
    "eval.resamples": 10,
}


class Page:
    """A file that is written to on a failing disk."""

    def __init__(self, file, disk: "Disk"):
        self.file, self.disk = file, disk

    def write(self, content) -> int:
        self.disk.meets("write", self.file.name)
        return self.file.write(content)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()


class Disk:
    """Fails once, at the first operation below a directory at a place that is not in `spared`. A
    place is an operation and a path in which words with digits count as one another."""

    def __init__(self, below: Path, monkeypatch: pytest.MonkeyPatch):
        self.below, self.spared, self.failed = str(below), set[str](), ""

        def opening(path, mode: str = "r", *args, real=io.open, **kwargs):
            if not set(mode) & set("wax+") or not str(path).startswith(self.below):
                return real(path, mode, *args, **kwargs)
            self.meets("open", path)
            return Page(real(path, mode, *args, **kwargs), self)

        def syncing(file: int, real=os.fsync) -> None:
            self.meets("sync", os.readlink(f"/proc/self/fd/{file}"))
            real(file)

        def naming(source, target, real) -> None:
            self.meets("rename", target)
            real(source, target)

        def making(path, *args, real=os.mkdir) -> None:
            if not os.path.exists(path):
                self.meets("mkdir", path)
            real(path, *args)

        monkeypatch.setattr(io, "open", opening)
        monkeypatch.setattr(os, "fsync", syncing)
        monkeypatch.setattr(os, "mkdir", making)
        for name in ("replace", "rename"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *paths, real=real: naming(*paths, real))

    def meets(self, operation: str, path) -> None:
        path = os.fspath(path)
        place = f"{operation} " + re.sub(r"\w*\d\w*", "#", path.removeprefix(self.below))
        if self.failed or place in self.spared or not path.startswith(self.below):
            return
        self.failed = place
        self.spared.add(place)
        named = path if operation in ("open", "rename", "mkdir") else None  # as the system does
        raise OSError(errno.EIO, os.strerror(errno.EIO), named)


def fit(directory: Path, phase, settings, model, mesh, adapter, data, title: str):
    """The loop of a phase without its computing."""
    with checkpoints.opened(directory) as saved:
        done, state = checkpoints.restore(saved, {"step": jnp.zeros(3)})
        kept = metrics.read(directory / "metrics.jsonl", done)
        with metrics.writing(directory, kept, project="", title=title, config={}) as write:
            for step in range(done + 1, 3):
                write({"step": step, "loss": 1 / step}, True)
                checkpoints.save(saved, step, {"step": state["step"] + step}, lambda: {1, 2})
    return adapter


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """A function that runs a whole job, without its computing, in a work directory."""
    config = good()
    for key, value in CHANGES.items():
        change(config, key, value)
    parsed = parse(config)
    prepared = job.Job(parsed, collects=False)
    team = replace(prepared.team, sampler=instant(prepared.team))
    monkeypatch.setattr(train, "fit", fit)

    def through(workdir: Path) -> None:
        with lock.sole(workdir):
            claim(workdir, config)
            collect.run(workdir, parsed, team, QUESTIONS)
            datasets.run(workdir, parsed)
            train.run(workdir, parsed, prepared.model, prepared.mesh)
            evaluation.run(workdir, parsed, team, {}, QUESTIONS)
            audit.run(workdir, parsed)
            report.write(workdir)

    return through


def ends(workdir: Path) -> dict[str, str]:
    """What a run ends with."""
    results = json.loads((workdir / "eval" / "results.json").read_text())
    del results["seconds"]
    ended = products(workdir) | {"results": json.dumps(results)}
    for file in workdir.glob("checkpoints/*/*/metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        figures = [[row["step"], row["loss"], row.get("eval")] for row in rows]
        ended[str(file.relative_to(workdir))] = json.dumps(figures)
    assert len(ended) > 10
    return ended


def met(stages: Callable[[Path], None], workdir: Path, disk: Disk) -> str:
    """The error that the stages end with; empty if they go through."""
    disk.failed = ""
    try:
        stages(workdir)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def test_an_error_at_any_write_stops_the_run_and_loses_nothing(tmp_path, monkeypatch, stages):
    """Errors of open files came without the file's name."""
    stages(tmp_path / "whole")
    workdir, stops = tmp_path / "run", []
    disk = Disk(workdir, monkeypatch)
    while error := met(stages, workdir, disk):
        assert disk.failed, error
        assert "Input/output error" in error, disk.failed
        assert str(workdir) in error, disk.failed
        stops.append(disk.failed)
    assert not disk.failed, f"nobody saw the error at {disk.failed}"
    monkeypatch.undo()
    places = {place.split()[0] for place in stops}
    assert places == {"open", "write", "sync", "rename", "mkdir"}
    for part in ("/trees/", "/datasets/", "/checkpoints/", "/export/", "/eval/", "/report/"):
        assert any(part in place for place in stops), part
    assert ends(workdir) == ends(tmp_path / "whole")


def test_what_to_do_is_said():
    for number, way in ((errno.EIO, "look after it"), (errno.ENOSPC, "make room")):
        said = storage.way_on(OSError(number, os.strerror(number), "file"))
        assert way in said
        assert "the same command goes on" in said
    assert not storage.way_on(FileNotFoundError(errno.ENOENT, "no such file", "file"))
    assert not storage.way_on(ValueError("config.seed"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        ValueError("UNKNOWN: Failed to fsync file: Input/output error [os_error_code='5']"),
        Exception("Input/output error (os error 5)"),
    ],
    ids=["python", "tensorstore", "rust"],
)
def test_an_error_of_any_library_gets_the_name_of_the_file(error: Exception):
    """TensorStore's was a page of its settings."""
    with (
        pytest.raises(OSError, match="Input/output error: 'a file'"),
        storage.naming(Path("a file")),
    ):
        raise error
    other = ValueError("5 is no answer")
    with pytest.raises(ValueError, match="no answer") as caught, storage.naming(Path("a file")):
        raise other
    assert caught.value is other


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """failing_disk.c, compiled."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) for the disk that fails")
    made = tmp_path / "failing_disk.so"
    source = ROOT / "tests" / "support" / "failing_disk.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


WHOLE = (
    "--config.chain=('generator',)",
    "--config.roles.generator.train=('sft','dpo')",
    "--config.data.train_questions=4",
    "--config.data.eval_questions=2",
    "--config.eval.systems=('sa','malt')",
    "--config.eval.equal_compute=False",
)


@pytest.mark.slow
def test_every_place_of_a_whole_run(tmp_path: Path, library: Path):
    """Through the front door, with training, and with what libraries of other languages write."""
    done = run(tmp_path / "whole", TINY, *WHOLE)
    assert done.returncode == 0, done.stderr[-3000:]
    workdir = tmp_path / "run"
    workdir.mkdir()
    plan = {
        "argv": command(workdir, TINY, *WHOLE)[2:],
        "directory": str(workdir),
        "library": str(library),
        "log": str(tmp_path / "log"),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "failing_disk.py"), json.dumps(plan)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *attempts, end = map(json.loads, done.stdout.splitlines())
    print(len(attempts), "places")
    for attempt in attempts:
        place, said = attempt["place"], attempt["said"]
        assert attempt["code"] == 1, (place, said)
        why = said.rpartition("malt_jax: ")[2]
        assert "Input/output error" in why, (place, said)
        assert str(workdir) in why, (place, said)
        assert "the same command goes on from" in why, (place, said)
    assert end["code"] == 0, end["said"]
    for kind in ("open", "write", "sync", "rename", "mkdir"):
        assert any(attempt["place"].startswith(kind) for attempt in attempts), kind
    for part in ("/trees/", "/datasets/", "/checkpoints/", "/export/", "/eval/", "/report/"):
        assert any(part in attempt["place"] for attempt in attempts), part
    assert ends(workdir) == ends(tmp_path / "whole")
