"""One process a work directory."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole(workdir: Path) -> Iterator[None]:
    """Holds a work directory for this process. The lock goes with the process, however it ends, so
    a stale one is never in the way.

    Raises ValueError with the holder's host and pid if another process has it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{workdir}: another run is at work there ({file.read().strip()}); wait for it, "
                "end it, or name another --config.workdir"
            ) from None
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.ctime()}
        try:
            file.truncate(0)
            file.write(json.dumps(holder) + "\n")
            file.flush()
        except OSError as error:  # of an open file, and without its name
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield
