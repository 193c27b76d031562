"""The whole job through its front door: every stage, every file, and a run that is killed and
started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import small

ROOT = Path(__file__).parents[1]


def command(workdir: Path, model: Path, *flags: str) -> list[str]:
    tiny = {
        "workdir": workdir,
        "model.path": model,
        "data.train_questions": 6,
        "data.eval_questions": 4,
        "roles.generator.max_new_tokens": 12,
        "roles.verifier.max_new_tokens": 12,
        "roles.refiner.max_new_tokens": 12,
        "sample.rows": 12,
        "sample.questions_per_shard": 2,
        "credit.threshold": 0.0,
        "sft.epochs": 1,
        "dpo.epochs": 1,
        "sft.batch": 4,
        "dpo.batch": 4,
        "eval.resamples": 100,
    }
    return [
        *(sys.executable, "-m", "malt_jax.main", "--config=configs/quickstart.py"),
        *(f"--config.{key}={value}" for key, value in tiny.items()),
        *flags,
    ]


def run(*args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*args, **kwargs), cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return small.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = run(workdir, model)
    assert done.returncode == 0, done.stderr[-3000:]
    return workdir


def nodes(workdir: Path) -> dict:
    rows = pq.read_table(workdir / "trees").to_pylist()
    return {(row["question_id"], *row["path"]): row for row in rows}


def test_the_job_leaves_the_contracts_files(whole):
    for name in (
        "config.json",
        "data.json",
        "datasets/yield.json",
        "datasets/verifier/dpo.parquet",
        "eval/results.json",
        "eval/predictions.parquet",
        "report/index.html",
        "report/report.md",
    ):
        assert (whole / name).stat().st_size > 0, name
    record = json.loads((whole / "config.json").read_text())
    assert record["config"]["data"]["train_questions"] == 6
    assert record["base_hash"].startswith("sha256:")
    assert record["versions"]["jax"]
    assert len(nodes(whole)) == 6 * 39
    results = json.loads((whole / "eval" / "results.json").read_text())
    assert set(results["systems"]) == {"sa", "sa_mv", "ma", "ma_mv", "malt", "malt_mv"}
    assert all(score["n"] == 4 for score in results["systems"].values())
    exported = {path.name for path in (whole / "export").iterdir()}
    assert exported == {"generator", "verifier", "refiner"}


def test_a_finished_run_does_nothing_again(whole, model):
    stamp = {path: path.stat().st_mtime_ns for path in whole.glob("trees/*")}
    stamp |= {path: path.stat().st_mtime_ns for path in whole.glob("export/*/*")}
    assert run(whole, model).returncode == 0
    assert stamp == {path: path.stat().st_mtime_ns for path in stamp}


def test_killed_in_collection_it_goes_on(whole, model, tmp_path):
    """SIGKILL after the first shard: the trees and the exports equal those of the unbroken run."""
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(workdir, model), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        while not (workdir / "trees" / "shard-00000.parquet").exists():
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    first = (workdir / "trees" / "shard-00000.parquet").stat().st_mtime_ns
    assert not (workdir / "export").exists()
    done = run(workdir, model)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (workdir / "trees" / "shard-00000.parquet").stat().st_mtime_ns == first
    assert nodes(workdir) == nodes(whole)
    for role in ("generator", "verifier", "refiner"):
        weights = f"export/{role}/adapter_model.safetensors"
        assert (workdir / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.seed=5"], "config.seed: 0 there, 5 now"),
        (["--config.sample.temperature=-1"], r"config.sample.temperature: must not be negative"),
        (["--config.sample.temprature=1"], r"temprature"),
        (["--config.data.task=gms8k"], r"no task 'gms8k'"),
        (["--stage=cook"], r"cook"),
        (["extra"], r"unexpected argument 'extra'"),
    ],
)
def test_bad_input_is_refused_with_its_name(whole, model, flags, message):
    done = run(whole, model, *flags)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_without_the_one_before_it_says_so(model, tmp_path):
    done = run(tmp_path / "run", model, "--stage=datasets")
    assert done.returncode != 0
    assert "run --stage=collect first" in done.stderr


def test_a_missing_model_is_named(tmp_path):
    done = run(tmp_path / "run", tmp_path / "no-such-model")
    assert done.returncode != 0
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr
