"""Signals, the lock and the watchdog, each in a process of its own."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from malt_jax.runtime import process
from malt_jax.workdir import lock

ROOT = Path(__file__).parents[2]


def started(body: str) -> subprocess.Popen:
    """A process that runs `body` after it has written "ready"."""
    code = "import signal, sys, time\nfrom pathlib import Path\n"
    code += "from malt_jax.runtime import process\nfrom malt_jax.workdir import lock\n"
    code += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run under nohup
    code += textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ready(child: subprocess.Popen) -> None:
    assert child.stdout.readline() == "ready\n", child.stderr.read()


STOPPABLE = """
    try:
        with process.stoppable():
            {work}
    except process.Stopped as error:
        print("cleaned up after", error, flush=True)
        raise SystemExit(process.AGAIN)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_process_with_a_code_of_its_own(number: signal.Signals):
    """SIGTERM killed the process where it stood; Ctrl-C left a traceback."""
    child = started(STOPPABLE.format(work='print("ready", flush=True); time.sleep(60)'))
    ready(child)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert child.returncode == process.AGAIN == 75
    assert out == f"cleaned up after {number.name}\n"
    assert "Traceback" not in err


def test_deferred_work_ends_on_its_own_terms():
    child = started("""
    with process.stoppable(), process.deferred():
        print("ready", flush=True)
        while not process.asked():
            time.sleep(0.01)
        print("committed", flush=True)
    """)
    ready(child)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=30)
    assert out == "committed\n"
    assert "process.Stopped: SIGTERM" in err


@pytest.mark.parametrize("again", [False, True])
def test_work_that_does_not_listen_is_ended_anyway(again: bool):
    child = started(f"""
    process.GRACE_SECONDS = {9.0 if again else 1.0}
    with process.stoppable(), process.deferred():
        print("ready", flush=True)
        time.sleep(60)
    """)
    ready(child)
    begun = time.monotonic()
    child.send_signal(signal.SIGTERM)
    if again:
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)
    assert child.returncode == process.AGAIN
    assert time.monotonic() - begun < process.GRACE_SECONDS


@pytest.mark.parametrize("hangs", [False, True])
def test_what_has_a_rescue_is_never_lost(hangs: bool):
    """Not to a second Ctrl-C, and not to devices that no signal gets through to."""
    child = started(f"""
    process.GRACE_SECONDS = 2.0
    with process.stoppable(), process.deferred(lambda: print("rescued", flush=True)):
        print("ready", flush=True)
        while {hangs} or not process.asked():
            time.sleep(0.01)
        time.sleep(1)
        print("committed", flush=True)
        process.heed()
        print("not heeded", flush=True)
    """)
    ready(child)
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert out == ("rescued\n" if hangs else "committed\n")
    assert hangs or "process.Stopped: SIGINT" in err


def test_a_lost_terminal_is_a_stop_but_not_under_nohup():
    body = """
    import signal
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with process.stoppable():
        print("ready", flush=True)
        while not process.asked():
            time.sleep(0.2)
            print("alive", flush=True)
    """
    child = started(body)
    ready(child)
    child.send_signal(signal.SIGHUP)
    assert [child.stdout.readline() for _ in range(3)] == ["alive\n"] * 3
    child.kill()
    child.communicate()


HOLD = """
    with lock.sole(Path({path!r})):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_dead_ones_lock_is_not_in_the_way(tmp_path: Path):
    child = started(HOLD.format(path=str(tmp_path)))
    ready(child)
    try:
        with (
            pytest.raises(ValueError, match=rf"another run is at work.*\"pid\": {child.pid}\b"),
            lock.sole(tmp_path),
        ):
            pass
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert (tmp_path / "lock").exists()
    with lock.sole(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    with lock.sole(tmp_path):  # and it is given back
        pass


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_held_by_a_file(tmp_path: Path, monkeypatch, caplog, error):
    """Lustre's ENOSYS ended the run with a traceback."""

    def no_locks(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    held = tmp_path / "lock.held"
    with lock.sole(tmp_path):
        assert "lock.held: no locks on this file system" in caplog.text
        with (
            pytest.raises(ValueError, match=rf"another run .*{os.getpid()}.* delete .*lock.held"),
            lock.sole(tmp_path),
        ):
            pass
        assert json.loads(held.read_text())["pid"] == os.getpid()
    assert not held.exists()
    child = subprocess.Popen(["true"])
    child.wait()
    held.write_text(json.dumps({"host": socket.gethostname(), "pid": child.pid}))
    with lock.sole(tmp_path):  # of a dead run on this host
        pass
    held.write_text(json.dumps({"host": "elsewhere", "pid": child.pid}))
    with pytest.raises(ValueError, match="elsewhere"), lock.sole(tmp_path):
        pass


def test_a_hang_ends_with_the_stacks():
    child = started("""
    process.PATIENCE_SECONDS = 0.5
    def stuck():
        time.sleep(60)
    with process.watched("decoding"):
        stuck()
    """)
    _, err = child.communicate(timeout=30)
    assert child.returncode == process.HUNG
    assert "in stuck" in err
    assert "decoding: no answer from the devices in 0 s" in err or "in 1 s" in err


def test_the_patience_is_for_one_program():
    child = started("""
    process.PATIENCE_SECONDS = 0.5
    with process.watched("a step of eight", 8):
        time.sleep(1)
    print("alive")
    """)
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "alive\n")


def test_an_answer_in_time_calls_the_watchdog_off():
    child = started("""
    process.PATIENCE_SECONDS = 0.5
    with process.watched("decoding"):
        pass
    time.sleep(1.5)
    print("alive")
    """)
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "alive\n")
