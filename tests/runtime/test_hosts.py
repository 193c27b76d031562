"""Several hosts, as processes on the loopback: what they make together is what one makes, and one
that dies takes the others along, not the work."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosting import assert_same, begin, ended, files, log, run
from whole import ROOT

from malt_jax.runtime import hosts, process

DIES_IN_SAVE = """
import os, runpy, signal
import orbax.checkpoint as ocp
whole, calls = ocp.StandardCheckpointHandler.save, []
def save(self, *args, **kwargs):
    calls.append(0)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, *args, **kwargs)
ocp.StandardCheckpointHandler.save = save
runpy.run_module("malt_jax.main", run_name="__main__")
"""

SLOW_TO_COMPILE = """
import runpy, time
from jax._src import compiler
whole, waits = compiler.compile_or_get_cached, [45]
def compile(backend, module, *args, **kwargs):
    if waits and "jit_step" in str(module.operation.attributes["sym_name"]):
        time.sleep(waits.pop())
        print("woke up", flush=True)
    return whole(backend, module, *args, **kwargs)
compiler.compile_or_get_cached = compile
runpy.run_module("malt_jax.main", run_name="__main__")
"""


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("one") / "run", 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("two") / "run", 2)


def test_two_hosts_make_what_one_makes(single, two):
    assert_same(two, single, "trees/*", "datasets/**/*.parquet", "datasets/*.json")
    shares = [log(two, host).count(" 0 tokens drawn") for host in range(2)]
    assert shares == [0, 0], "a host had nothing to sample"
    assert len(list((two / "eval" / "malt").glob("shard-*"))) == 3


def test_what_the_first_host_refuses_all_refuse(two):
    processes = begin(two, 2, "--config.seed=5")
    assert ended(processes, 120) == [1, 1]
    for host in range(2):
        assert f"malt_jax: host {host} of 2: " in log(two, host)
        assert "config.seed: 0 there, 5 now" in log(two, host)


@pytest.mark.slow
def test_hosts_with_directories_of_their_own_are_told_so(tmp_path):
    processes = begin(tmp_path / "run", 2, last=[f"--config.workdir={tmp_path / 'other'}"])
    assert ended(processes, 120) == [1, 1]
    for host in range(2):
        assert "is not one directory for all hosts" in log(tmp_path / "run", host)


@pytest.mark.slow
def test_four_hosts_of_two_devices_make_what_one_makes(single, tmp_path):
    four = run(tmp_path / "run", 4, "--config.mesh.fsdp=2", devices=2)
    assert_same(four, single, "datasets/**/*.parquet", "datasets/*.json")
    assert len(files(four, "trees/shard-*")) == 6


@pytest.mark.slow
def test_hosts_that_share_the_weights_sample_in_step(single, tmp_path):
    """No host holds the weights alone. The tokens are the same; log-probabilities are rounded
    otherwise."""
    step = run(tmp_path / "run", 2, "--config.mesh.tensor=2", "--config.sample.kv_gib=0.05")
    assert_same(step, single, "datasets/**/*.parquet", "datasets/*.json")


@pytest.mark.slow
def test_a_host_that_compiles_for_longer_is_waited_for(tmp_path):
    """Connections between CPUs are made by the first collective over all their devices, which
    waits for half a minute: the fast host ended the job."""
    processes = begin(tmp_path / "run", 2, devices=2, program=SLOW_TO_COMPILE)
    assert ended(processes, 900) == [0, 0], log(tmp_path / "run", 0)
    assert "woke up" in log(tmp_path / "run", 1)


@pytest.mark.slow
def test_a_host_killed_in_collection_ends_the_others_and_costs_one_shard(single, tmp_path):
    workdir = tmp_path / "run"
    processes = begin(workdir, 2)
    trees = workdir / "trees"
    while len(list(trees.glob("shard-*"))) < 2:
        assert all(process.poll() is None for process in processes), log(workdir, 0)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)  # as a scheduler does that takes a host away
    began = time.monotonic()
    statuses = ended(processes, 60)
    assert statuses[1] == process.AGAIN
    assert statuses[0] not in (0, -signal.SIGKILL), "the first host went on, or had to be killed"
    assert time.monotonic() - began < 60
    assert "another task died" in log(workdir, 0)
    assert not (workdir / "datasets").exists()
    before = {path: path.stat().st_mtime_ns for path in trees.glob("shard-*")}
    run(workdir, 1)  # fewer hosts than before
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert_same(workdir, single, "trees/*", "datasets/**/*.parquet", "datasets/*.json")


@pytest.mark.slow
def test_a_host_killed_in_a_save_ends_the_others_and_the_phase_goes_on(single, tmp_path):
    """On as many devices as there were, on other hosts: two of one device, then one of two."""
    workdir = tmp_path / "run"
    statuses = ended(begin(workdir, 2, program=DIES_IN_SAVE), 600)
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] not in (0, -signal.SIGKILL)
    phase = workdir / "checkpoints" / "refiner" / "sft"
    whole = [path.parent.name for path in phase.glob("*/manifest.json")]
    assert whole == ["2"], "the second save was the one that failed"
    run(workdir, 1, devices=2)
    assert_same(workdir, single, "trees/*", "datasets/**/*.parquet", "datasets/*.json")
    assert "checkpoint is passed over" not in log(workdir, 0)


def test_a_process_alone_needs_no_runtime():
    """In a process of its own: JAX may not have been used before it looks for a cluster."""
    program = "from malt_jax.runtime import hosts; hosts.start('', 0, -1); hosts.start('', 1, -1)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
    assert hosts.first()
    assert not hosts.several()
    assert hosts.same(b"anything")
    with pytest.raises(ValueError, match="trees are missing"):
        hosts.by_first(lambda: (_ for _ in ()).throw(ValueError("trees are missing")))


@pytest.mark.parametrize(("processes", "process"), [(0, -1), (2, 2), (2, -1)])
def test_a_process_without_its_number_is_told(processes, process):
    with pytest.raises(ValueError, match=r"--processes=\d --process=-?\d: give the number"):
        hosts.start("localhost:1", processes, process)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_item_is_one_hosts(count):
    items = list(range(5))
    shares = [hosts.Part(i, count).of(items) for i in range(count)]
    assert sorted(item for share in shares for item in share) == items
