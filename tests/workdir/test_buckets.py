"""A work directory in a bucket, on a fake of Google Cloud Storage: the promises of a disk, by other
means."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hosting
import numpy as np
import pytest
import saving
import trees

from malt_jax import export
from malt_jax.learn import metrics
from malt_jax.workdir import checkpoints, shards, storage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gs://BUCKET/NAME on a server of its own, for this process and those that it starts."""
    port_file = tmp_path_factory.mktemp("gcs") / "port"
    server = subprocess.Popen([sys.executable, ROOT / "tests/support/fake_gcs.py", port_file])
    try:
        while not port_file.exists() or not port_file.read_text():
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port_file.read_text()}"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "STORAGE_EMULATOR_HOST": address,  # gcsfs
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks for the bucket's kind by gRPC
                "FSSPEC_GCS_TOKEN": "anon",
                "TENSORSTORE_GCS_HTTP_URL": address,  # Orbax
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
            }.items():
                patch.setenv(name, value)
            pytest.importorskip("gcsfs", reason="no gcsfs; pip install -e '.[gcs]'")
            import fsspec

            patch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
            yield "gs://bucket"
    finally:
        server.kill()
        server.wait()


def test_a_file_appears_whole_or_not_at_all(bucket):
    path = storage.at(f"{bucket}/whole/a.json")
    with suppress(KeyboardInterrupt), storage.written_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert not path.exists()
    storage.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(storage.files(path.parent)) == [path]


def test_a_directory_counts_once_its_marker_is_written(bucket, monkeypatch):
    """Cut off at any file, a first export and one over another."""
    workdir = storage.at(f"{bucket}/marked")
    target = workdir / "export" / "refiner"

    def write(version: str) -> None:
        with storage.directory_whole(target, export.RECORD) as directory:
            for name in ("adapter.safetensors", export.RECORD, "z.md"):
                (directory / name).write_text(version)

    upload, left = storage._upload, 0

    def until_cut(file, place):
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError
        upload(file, place)

    monkeypatch.setattr(storage, "_upload", until_cut)
    for before in (None, "old"):
        for files in range(3):
            if before:
                left = 3
                write(before)
            left = files
            with pytest.raises(ConnectionError):
                write("new")
            assert not export.exists(workdir, "refiner")
    left = 3
    write("new")
    assert export.exists(workdir, "refiner")
    assert {file.read_text() for file in storage.files(target)} == {"new"}


def test_shards_are_those_of_a_disk(bucket, tmp_path):
    calls: list[list[str]] = []
    in_bucket = storage.at(f"{bucket}/trees")
    trees.grow_nothing(in_bucket, calls)
    trees.grow_nothing(tmp_path, calls)
    trees.grow_nothing(in_bucket, calls)
    assert len(calls) == 2, "what is there was grown again"
    here = {path.name: path.read_bytes() for path in shards.paths(tmp_path)}
    assert {path.name: path.read_bytes() for path in shards.paths(in_bucket)} == here


def test_what_another_process_writes_is_seen(bucket):
    directory = storage.at(f"{bucket}/seen")
    storage.write_json(directory / "a.json", {})
    assert [path.name for path in directory.iterdir()] == ["a.json"]
    program = "from malt_jax.workdir import storage; "
    program += f"storage.write_json(storage.at('{directory}/b.json'), 1)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert [path.name for path in sorted(directory.iterdir())] == ["a.json", "b.json"]
    assert (directory / "b.json").exists()


def test_checkpoints_come_back_and_damage_is_found(bucket, caplog):
    directory = saving.saved(storage.at(f"{bucket}/checkpoints"), 1, 2, 3)
    step, state = saving.restored(directory)
    assert step == 3
    np.testing.assert_array_equal(state["adapter"]["a"], np.full((3, 5), 3.0))
    (directory / "3" / "_METADATA").unlink()
    (directory / "2" / checkpoints.MANIFEST).unlink()
    assert saving.restored(directory)[0] == 1
    assert "_METADATA: missing" in caplog.text


def test_figures_are_there_when_a_checkpoint_relies_on_them(bucket):
    directory = storage.at(f"{bucket}/phase")
    path = directory / "metrics.jsonl"
    how = {"project": "", "title": "t", "config": {}}
    with metrics.writing(directory, [], **how) as write:
        for step in (1, 2, 3):
            write({"step": step, "loss": 1.0}, step == 2)
        assert [row["step"] for row in metrics.read(path, 9)] == [1, 2]
    assert [row["step"] for row in metrics.read(path, 9)] == [1, 2, 3]
    kept = metrics.read(path, 2)
    with suppress(KeyboardInterrupt), metrics.writing(directory, kept, **how) as write:
        write({"step": 3, "loss": 2.0, "eval": True}, True)
        raise KeyboardInterrupt
    assert [row["loss"] for row in metrics.read(path, 9)] == [1.0, 1.0, 2.0]
    events = list(storage.files(directory / "tensorboard"))
    assert len(events) == 2
    assert all(storage.size(file) > 0 for file in events)


@pytest.mark.slow
def test_a_job_of_two_hosts_in_a_bucket_killed_goes_on(bucket, tmp_path):
    """The result is that of one host on a disk."""
    logs = tmp_path / "run"
    workdir = storage.at(f"{bucket}/runs/job")
    flag = f"--config.workdir={workdir}"
    whole = hosting.run(tmp_path / "one", 1)
    processes = hosting.begin(logs, 2, flag)
    while len(shards.paths(workdir / "trees")) < 2:
        assert all(process.poll() is None for process in processes), hosting.log(logs, 0)
        time.sleep(0.1)
    os.kill(processes[1].pid, signal.SIGKILL)
    assert 0 not in hosting.ended(processes, 60)
    hosting.run(logs, 2, flag)
    local = tmp_path / "fetched"
    for file in storage.files(workdir):
        target = local / file.relative_to(workdir).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    hosting.assert_same(local, whole, "trees/*", "datasets/**/*.parquet", "datasets/*.json")
    assert (local / "report" / "index.html").stat().st_size > 0
