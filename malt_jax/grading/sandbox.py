"""Processes of which nothing comes out but lines on a pipe: bubblewrap, or a refusal.

A process in the sandbox has namespaces of its own for users, processes, IPC, host name, cgroups and
network (with no interface that leads anywhere). Its root is read-only and holds the interpreter,
its standard library and the system's shared libraries: no home, no /etc, no /proc, no packages, no
environment. It can write to 16 MiB of /tmp that are gone with it. `system_calls` refuses calls of
the kernel, new processes first of all; `boxed` sets limits on CPU time, memory, files. bubblewrap
ends it with its parent.

bubblewrap's arguments are written here rather than taken from llm-sandbox, whose sessions start an
interpreter on a file and read its output: a verdict needs a conversation over pipes (`programs`),
and the package brings more code than the forty arguments below. nsjail would be a second set of
arguments to attack and to keep, for machines that have bubblewrap as well.

What remains possible: a fault of the kernel in a system call that is allowed, and what a program
can measure of the machine (its clock, the processor).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from malt_jax.grading import boxed, system_calls
from malt_jax.tasks.program import Isolation

CPU_SECONDS = 3  # of one program over all its tests
MEMORY = 512 << 20  # bytes of address space
WRITABLE = 16 << 20  # bytes of /tmp

_CODE = Path(boxed.__file__).parent
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "__import__(sys.argv[2]).main(*map(int, sys.argv[3:]))"
)
_START = ("-I", "-S", "-B", "-X", "utf8")  # no site, no user's packages, no variables, no caches


@dataclass
class Boxed:
    """A process in a sandbox, and the pipes' ends on this side."""

    process: subprocess.Popen[bytes]
    requests: int  # a descriptor to write to
    replies: int  # a descriptor to read from

    def end(self) -> None:
        """Ends it with all it started; does nothing the second time."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def start(
    role: Literal["program", "checks"], isolation: Isolation, cpu_seconds: int = CPU_SECONDS
) -> Boxed:
    """A new process of `boxed`. Raises OSError where it cannot be had."""
    command = [sys.executable if isolation == "unprotected" else _interpreter(), *_START]
    place = str(_CODE) if isolation == "unprotected" else "/boxed"
    read, write = os.pipe()
    try:
        if isolation == "bubblewrap":
            os.write(write, system_calls.compiled(processes=role == "checks"))
            command = [*_bubblewrap(read), *command]
        os.close(write)
        write = -1
        process = subprocess.Popen(
            [*command, "-c", _MAIN, place, role, str(cpu_seconds), str(MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0"},
            cwd="/",
            pass_fds=(read,),
            start_new_session=True,
        )
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    assert process.stdin is not None
    assert process.stdout is not None
    requests = process.stdin.fileno()
    os.set_blocking(requests, False)
    return Boxed(process, requests, process.stdout.fileno())


def complaint(box: Boxed) -> str:
    """The last line that a process which did not start left on its standard error."""
    box.process.kill()
    assert box.process.stderr is not None
    lines = box.process.stderr.read(1 << 12).decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it says nothing"


def _bubblewrap(seccomp: int) -> list[str]:
    """bwrap and its arguments up to the command; `seccomp` is the descriptor of the filter."""
    return [*_fixed(), "--seccomp", str(seccomp), "--"]


@cache
def _fixed() -> list[str]:
    bwrap = shutil.which("bwrap") or "bwrap"
    arguments = [
        bwrap,
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]
    arguments += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--cap-drop", "ALL"]
    arguments += ["--setenv", "PYTHONHASHSEED", "0"]
    for place in _places():
        arguments += ["--ro-bind", place, place]
    for place in _packages():
        arguments += ["--size", "4096", "--tmpfs", place, "--remount-ro", place]
    arguments += ["--ro-bind", str(_CODE), "/boxed"]
    for device in ("/dev/null", "/dev/urandom"):
        arguments += ["--dev-bind", device, device]
    arguments += ["--size", str(WRITABLE), "--tmpfs", "/tmp"]
    return [*arguments, "--chdir", "/tmp", "--remount-ro", "/"]


def _interpreter() -> str:
    """The interpreter itself, not the link of a virtual environment."""
    return os.path.realpath(sys.executable)


def _places() -> list[str]:
    """What an interpreter reads: itself, its library, the system's shared libraries."""
    prefix = Path(sys.base_prefix)
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
    candidates = [_interpreter(), str(prefix / "lib"), str(prefix / sys.platlibdir), *system]
    return [place for place in dict.fromkeys(candidates) if os.path.exists(place)]


def _packages() -> list[str]:
    """Directories of installed packages in `_places`, which are hidden: one of them may hold the
    tests themselves."""
    base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
    paths = [sysconfig.get_path(name, "posix_prefix", base) for name in ("purelib", "platlib")]
    roots = [Path(place) for place in _places() if os.path.isdir(place)]
    names = ("python3*/dist-packages", "python3*/site-packages", "python3/dist-packages")
    paths += [str(path) for root in roots for name in names for path in root.glob(name)]
    distinct = {os.path.realpath(path) for path in paths if os.path.isdir(path)}
    return sorted(path for path in distinct if any(root in Path(path).parents for root in roots))
