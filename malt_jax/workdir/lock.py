"""One process a work directory."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from absl import logging

from malt_jax.runtime import hosts
from malt_jax.workdir import storage

# Of file systems without `flock`: Lustre and NFS as they are often mounted.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def held(workdir: Path) -> AbstractContextManager[None]:
    """`sole` by the first host, where the work directory lies on a disk."""
    free = not hosts.first() or storage.in_bucket(workdir)
    return nullcontext() if free else sole(workdir)


@contextmanager
def sole(workdir: Path) -> Iterator[None]:
    """Holds a work directory for this process. The lock goes with the process, however it ends, so
    a stale one is never in the way.

    On a file system without locks a file holds it, which a process that is killed leaves behind:
    the next one on the same host sees that it is dead, and one on another host cannot know. Raises
    ValueError with the holder's host and pid if another process has it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(_refusal(workdir, file.read())) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            with _by_file(workdir, error):
                yield
            return
        try:
            file.truncate(0)
            file.write(_holder())
            file.flush()
        except OSError as error:  # of an open file, and without its name
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield


@contextmanager
def _by_file(workdir: Path, error: OSError) -> Iterator[None]:
    path = workdir / "lock.held"
    logging.warning(
        "%s: no locks on this file system (%s), so that a file stands for it", path, error
    )
    if path.exists() and _ended(path.read_text()):
        path.unlink(missing_ok=True)
    try:
        with path.open("x") as file:
            file.write(_holder())
    except FileExistsError:
        way_on = f"; if it is dead, delete {path}"
        raise ValueError(_refusal(workdir, path.read_text()) + way_on) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _holder() -> str:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.ctime()}
    return json.dumps(holder) + "\n"


def _ended(holder: str) -> bool:
    """Whether a holder is known to be dead: one of this host that does not run any more."""
    try:
        said = json.loads(holder)
        if said["host"] != socket.gethostname():
            return False
        os.kill(said["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):  # another user's, or half a file
        return False
    return False


def _refusal(workdir: Path, holder: str) -> str:
    return (
        f"{workdir}: another run is at work there ({holder.strip()}); wait for it, end it, or name "
        "another --config.workdir"
    )
