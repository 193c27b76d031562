"""A whole run that is asked to end, and a second one in its place."""

import json
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from whole import ROOT, TINY, command, run

from malt_jax.workdir import shards

# Two roles of one phase each, the first long enough to be met at work.
LONG = (
    "--config.sft.epochs=400",
    "--config.roles.verifier.train=()",
    "--config.roles.refiner.train=()",
    "--config.eval.systems=('malt',)",
)


def begun(workdir: Path, mark: Path, *flags: str) -> subprocess.Popen:
    """A run that has come as far as a third line in the file `mark`."""
    process = subprocess.Popen(
        command(workdir, TINY, *flags), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while not (mark.exists() and mark.read_bytes().count(b"\n") > 2):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


def ended(process: subprocess.Popen, number: signal.Signals) -> str:
    asked = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert time.monotonic() - asked < 10
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    return said


def test_a_training_asked_to_end_saves_its_step(tmp_path: Path):
    """SIGTERM lost up to `checkpoint_every` steps, and looked like a crash."""
    workdir = tmp_path / "run"
    phase = workdir / "checkpoints" / "generator" / "sft"
    process = begun(workdir, phase / "metrics.jsonl", *LONG)
    second = run(workdir, TINY, *LONG)
    assert second.returncode == 1
    assert f'"pid": {process.pid}' in second.stderr
    assert "another run is at work there" in second.stderr
    ended(process, signal.SIGTERM)
    lines = (phase / "metrics.jsonl").read_text().splitlines()
    newest = max(int(path.name) for path in phase.iterdir() if path.name.isdigit())
    assert newest == json.loads(lines[-1])["step"]
    assert (phase / str(newest) / "manifest.json").exists()


def test_a_collection_asked_to_end_twice_keeps_the_trees_that_are_whole(tmp_path: Path):
    """With a shard of 16 questions, Ctrl-C lost all of 8 and said that the run goes on from
    there."""
    many = ("--config.data.train_questions=8", "--config.sample.questions_per_shard=16")
    slowly = ("--config.sample.rows=12", "--stage=collect")
    process = subprocess.Popen(
        command(tmp_path / "run", TINY, *many, *slowly),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    said = ""
    while not (nodes := re.findall(r"(\d+)/312 ", said)) or int(nodes[-1]) < 80:
        said += process.stderr.read(1)
        assert process.poll() is None, said
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    ended(process, signal.SIGINT)
    (kept,) = (tmp_path / "run" / "trees").glob("*.parquet")
    assert kept.name == "partial-00000.parquet"
    trees = [row["question_id"] for row in shards.read_one(kept, ["question_id"])]
    assert set(Counter(trees).values()) == {39}
