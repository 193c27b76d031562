"""Programs that attack what grades them: none is rewarded, nothing leaves, and the next one's
verdict is as it would have been."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import planted_programs as planted
import pytest
from planted_programs import FORGERIES

from malt_jax import grading, tasks
from malt_jax.grading import programs, sandbox, system_calls
from malt_jax.tasks.program import Isolation, Program, Running
from malt_jax.types import Grade

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="no sandbox: apt-get install bubblewrap"
)
TESTS = ("assert f(1) == 2", "assert f(20) == 21", "assert f(-5) == -4")


@pytest.fixture(autouse=True, scope="module")
def no_process_left() -> Iterator[None]:
    yield
    programs.close()
    grading.close()


def graded(
    code: str, *tests: str, score: str = "all", isolation: Isolation = "bubblewrap"
) -> Grade:
    program = Program(code, "f", "", tests or TESTS, ("f(1)", "f(2)"))
    grade, why = programs.grade(program, Running(isolation, score))  # type: ignore[arg-type]
    assert not why
    return grade


def asked(body: str) -> object:
    """What a program in the sandbox finds: `body` returns it, as the only answer that passes."""
    code = "import os, sys, socket\ndef f(x):\n" + "\n".join(
        f"    {line}" for line in body.split("\n")
    )
    program = Program(code, "f", "", ("assert f(1) is not None",), ("f(1)",))
    (entry,) = programs.behaviour(program, Running())
    return entry and entry[1]


def test_a_right_program_is_right_and_a_wrong_one_wrong() -> None:
    assert graded("def f(x):\n    return x + 1").status == "correct"
    assert graded("def f(x):\n    return 2 * x").status == "wrong"
    assert graded("def f(x):\n    return 2 * x", score="share").score == pytest.approx(1 / 3)
    assert graded("f = 3").status == "wrong"
    assert graded("def g(x): pass").score == 0


@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_is_rewarded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    assert graded(FORGERIES[name], score="share").score == 0
    assert graded("def f(x):\n    return x + 1").status == "correct"


def test_a_program_that_hangs_sleeps_or_forks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    for body in ("while True: pass", "print('x' * 99, flush=True) or f(x)"):
        grade = graded(f"def f(x):\n    {body}", score="share")
        assert (grade.status, grade.score) == ("wrong", 0)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "WALL_SECONDS", 2.0)
        sleeps = graded("import time\ndef f(x):\n    time.sleep(99)", score="share")
        assert (sleeps.status, sleeps.score) == ("wrong", 0)
    forks = "import os\nwhile True:\n    os.fork()"
    assert graded(forks).status == "wrong"
    threads = (
        "import threading\ndef f(x):\n    threading.Thread(target=f).start()\n    return x + 1"
    )
    assert graded(threads).status == "wrong"
    assert graded("def f(x):\n    return x + 1").status == "correct"


def test_no_error_ends_the_loops_of_a_test() -> None:
    test = "assert all(map(lambda x: f(x) == x + 1, range(3)))"
    assert graded(FORGERIES["ends the loops of the tests"], test).status == "wrong"
    assert graded("def f(x): return x + 1", test).status == "correct"
    assert graded("def f(x): return range(10 ** 18)", "assert sorted(f(1))").status == "wrong"


def test_a_module_that_tests_do_not_import_is_the_libraries() -> None:
    test = "assert math.isclose(f(1), 2.0)"
    forged = "class math:\n    isclose = lambda a, b: True\ndef f(x):\n    return 7"
    assert graded(forged, test).status == "wrong"
    assert graded("def f(x): return x + 1.0", test).status == "correct"


@pytest.mark.parametrize(("processor", "clone"), [("x86_64", 56), ("aarch64", 220)])
def test_the_filter_has_the_processors_own_numbers(
    processor: str, clone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: processor)
    instructions = {system_calls.compiled(processes=flag) for flag in (True, False)}
    refused = [list(struct.iter_unpack("=HBBI", code)) for code in sorted(instructions, key=len)]
    assert [(0x15, 0, 1, clone) in code for code in refused] == [False, True]
    assert all(code[-1] == (0x06, 0, 0, 0x7FFF0000) for code in refused)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no table of system calls for 'riscv64'"):
        system_calls.compiled(processes=False)


def test_a_vote_does_not_depend_on_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    stuck = graded("def f(x):\n    while x == 20: pass\n    return x + 1")
    assert (stuck.status, stuck.answer) == ("wrong", graded("def f(x): return 1 + x").answer)


def test_a_right_program_may_hang_on_a_varied_argument() -> None:
    """The varied one cost it three seconds, and its vote was cut there."""
    code = "def f(x):\n    while x == 2: pass\n    return x + 1"
    program = Program(code, "f", "", TESTS, ("f(1)", "f(2)", "f(3)"))
    assert programs.behaviour(program, Running()) == [["value", 2], None, ["value", 4]]
    assert graded(code).status == "correct"


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (
            "try: open('/etc/passwd')\nexcept OSError as e: return type(e).__name__",
            "FileNotFoundError",
        ),
        (
            "return [place for place in ('/home', '/var') if os.path.exists(place)]",
            ["list", []],
        ),
        ("return sorted(os.listdir('/dev'))", ["list", ["null", "urandom"]]),
        ("return os.path.exists('/proc') or os.path.exists('/sys')", False),
        ("return sorted(os.environ)", ["list", ["LC_CTYPE", "PWD", "PYTHONHASHSEED"]]),
        ("return [os.getpid(), os.getuid(), os.uname()[1]]", ["list", [2, 65534, "sandbox"]]),
        ("try: os.fork()\nexcept OSError as e: return e.errno", 1),
        ("try: socket.socket()\nexcept OSError as e: return e.errno", 1),
        ("try: open('/usr/lib/x', 'w')\nexcept OSError as e: return e.errno", 30),
        ("try: open('/x', 'w')\nexcept OSError as e: return e.errno", 30),
        ("try: os.mkdir('/dev/x')\nexcept OSError as e: return e.errno", 30),
        ("os.symlink('/etc/passwd', 'p')\ntry: open('p')\nexcept OSError as e: return e.errno", 2),
        ("os.symlink('/', 'r')\ntry: open('r/x', 'w')\nexcept OSError as e: return e.errno", 30),
        (
            "open('t', 'w').write('y')\nreturn open('/tmp/t').read() + str(os.listdir('/tmp'))",
            "y['t']",
        ),
        (
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
            "return [libc.unshare(0x10000000), ctypes.get_errno()]",
            ["list", [-1, 1]],
        ),
        (
            "n = 0\ntry:\n    for i in range(99):\n        with open(str(i), 'wb') as g:\n"
            "            n += g.write(bytes(1 << 20))\nexcept OSError: return 8 < n >> 20 < 20",
            True,
        ),
        ("try: import numpy\nexcept ImportError: return 1", 1),
        ("import resource\nreturn resource.getrlimit(resource.RLIMIT_AS)[1]", sandbox.MEMORY),
    ],
)
def test_there_is_nothing_to_find_and_nowhere_to_go(body: str, answer: object) -> None:
    assert asked(body) == answer


def test_of_a_home_there_is_at_most_the_interpreter() -> None:
    home, prefix = Path.home(), Path(sys.base_prefix)
    found = asked(f"return os.listdir({str(home)!r}) if os.path.exists({str(home)!r}) else []")
    inside = [prefix.relative_to(home).parts[0]] if prefix.is_relative_to(home) else []
    assert found == ["list", inside]


def test_a_file_of_the_hosts_cannot_be_read_or_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o666)
    assert asked(f"return os.path.exists({str(secret)!r})") is False
    assert (
        asked(f"open('/tmp/x', 'w').write('1')\nreturn os.path.exists({str(tmp_path)!r})") is False
    )
    assert secret.read_text() == "s3cret"


def test_the_host_cannot_be_reached(tmp_path: Path) -> None:
    """A listener on the loopback and one at a path: the planted client reaches both from outside,
    and neither from inside."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        client = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        found = asked(f"try: exec({client!r})\nexcept OSError as e: return 'refused'")
        assert found == "refused"
        subprocess.run([sys.executable, "-c", client], check=True)
        server.accept()[0].close()


def test_the_unprotected_setting_runs_programs_as_the_user_does(tmp_path: Path) -> None:
    file = tmp_path / "written"
    code = f"def f(x):\n    open({str(file)!r}, 'w').write('x')\n    return x + 1"
    assert graded(code, isolation="unprotected").status == "correct"
    assert file.read_text() == "x"
    file.unlink()
    assert graded(code).status == "wrong"
    assert not file.exists()
    for name in (
        "equals everything",
        "patches the harness",
        "writes a verdict to every descriptor",
    ):
        assert graded(FORGERIES[name], isolation="unprotected").score == 0


def test_no_sandbox_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs.require("bubblewrap")
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._fixed.cache_clear()
    with pytest.raises(ValueError, match=r"config.data.sandbox: bwrap.*apt-get install bubblewrap"):
        programs.require("bubblewrap")
    programs.require("unprotected")
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    with pytest.raises(ValueError, match=r"no sandbox here.*No permissions to create.*unprotected"):
        programs.require("bubblewrap")
    grade, why = programs.grade(Program("def f(x): pass", "f", "", TESTS, ()), Running())
    sandbox._fixed.cache_clear()
    programs.close()
    assert (grade.status, "No permissions" in why) == ("unknown", True)  # and never run unprotected


def test_hostile_samples_cost_no_other_sample_its_verdict() -> None:
    """Through the pool of grading processes, as a run does it."""
    task = tasks.get("humaneval")
    wrong = "def double(x):\n    return 5"
    forged = FORGERIES["ends the process"].replace("f(x)", "double(x)")
    codes = [planted.RIGHT, forged, planted.RIGHT + "\n\n", wrong, "def double(:"]
    grades = grading.grade(task, [planted.sample(code) for code in codes])
    assert [g.status for g in grades] == ["correct", "wrong", "correct", "wrong", "unparseable"]
    assert grades[0].answer == grades[2].answer != grades[3].answer
    shares = replace(task, running=Running(score="share"))
    (half,) = grading.grade(shares, [planted.sample("def double(x):\n    return 4 if x else 0")])
    assert half.score == pytest.approx(2 / 3)


def test_a_killed_grader_leaves_no_program_behind() -> None:
    boxed = sandbox.start("program", "bubblewrap")
    os.read(boxed.replies, 100)
    ended = threading.Event()
    boxed.process.kill()  # bubblewrap alone: what it started goes with it
    threading.Thread(target=lambda: (os.read(boxed.replies, 1), ended.set()), daemon=True).start()
    assert ended.wait(10)
    boxed.end()
