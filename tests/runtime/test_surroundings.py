"""What a machine may lack: a device, a cluster's answer, a home, a library, a user's patience. Each
is a line or no matter, and never a traceback."""

import os
import pwd
import signal
import subprocess
import sys
import textwrap
from glob import glob

import jax
import pytest

from malt_jax.config import files, places
from malt_jax.runtime import hosts
from malt_jax.workdir import storage

RUN = """
import runpy, sys
sys.argv = ["malt_jax", "--config=quickstart", "--stage=report", "--config.workdir=nowhere"]
runpy.run_module("malt_jax.main", run_name="__main__")
"""


def run(before: str, **environment: str) -> subprocess.CompletedProcess:
    """A run whose work directory is not there, which says so at its end; `before` it, some code."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before) + RUN],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def last_line(done: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_a_platform_that_is_not_here_is_told(platform):
    """For cuda JAX fails an assertion without a word."""
    done = run("", JAX_PLATFORMS=platform)
    assert done.returncode == 1
    assert f"JAX_PLATFORMS={platform}: no device of it can be used here" in last_line(done)
    assert "unset JAX_PLATFORMS" in last_line(done)


def test_without_a_home_and_a_name_a_run_goes_on():
    before = """
        import os, pwd
        del os.environ["HOME"]
        def nobody(uid): raise KeyError(uid)
        pwd.getpwuid = nobody
    """
    assert "nowhere: no such work directory" in last_line(run(before, JAX_PLATFORMS="cpu"))


def test_a_tilde_without_a_home_is_told(monkeypatch, tmp_path):
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for read in (places.at_home, storage.at, files.load):
        with pytest.raises(ValueError, match=r"~/a.py: no home directory is known for ~; write"):
            read("~/a.py")
    assert storage.at(str(tmp_path)) == tmp_path


def test_ctrl_c_while_libraries_are_imported_leaves_no_traceback():
    before = """
        import builtins, os, signal
        whole = builtins.__import__
        def stopped(name, *rest, **more):
            if name.partition(".")[0] == "jax":
                os.kill(os.getpid(), signal.SIGINT)
            return whole(name, *rest, **more)
        builtins.__import__ = stopped
    """
    done = run(before)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("library", "error"),
    [
        ("safetensors", "ModuleNotFoundError('No module named x')"),
        ("tokenizers", "OSError('libx.so.1: cannot open')"),
        ("ml_collections", "ImportError('libx.so.1: cannot open')"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_told(library, error):
    before = f"""
        import builtins
        whole = builtins.__import__
        def broken(name, *rest, **more):
            if name.partition(".")[0] == {library!r}:
                raise {error}
            return whole(name, *rest, **more)
        builtins.__import__ = broken
    """
    done = run(before)
    assert done.returncode == 1
    assert "a library cannot be loaded here (" in last_line(done)
    assert "pip install --force-reinstall malt-jax" in last_line(done)


def test_a_library_for_tpus_says_nothing_where_there_is_none():
    """It is installed for plans."""
    if glob("/dev/accel*") or glob("/dev/vfio/[0-9]*"):
        pytest.skip("there is a TPU here")
    done = run("", JAX_PLATFORMS="")
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert "nowhere: no such work directory" in last_line(done)


class ConfigException(Exception):
    """As the client of Kubernetes raises it in a pod without a token."""


@pytest.mark.parametrize(
    "error",
    [
        ConfigException("Service token file does not exist."),
        RuntimeError("Getting metadata['tpu-env'] failed for 6 tries\nmore"),
        FileNotFoundError(2, "No such file", "/var/run/secrets/namespace"),
        ConnectionError("metadata.google.internal"),
        KeyError("TPU_WORKER_HOSTNAMES"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_with_the_way_on(monkeypatch, error):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with pytest.raises(ValueError, match=rf"\({type(error).__name__}: .*or --processes=1") as told:
        hosts.start("", 0, -1)
    assert "\n" not in str(told.value)
    hosts.start("", 1, -1)  # which asks nobody


def test_where_there_is_no_cluster_a_process_is_the_whole_job(monkeypatch):
    def nothing(*_: object, **__: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing)
    hosts.start("", 0, -1)
