"""The process and the world outside: stopped when asked, ended when its devices hang."""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from absl import logging

AGAIN = 75  # EX_TEMPFAIL: nothing is wrong, the same command goes on from here
HUNG = 70  # EX_SOFTWARE
PATIENCE_SECONDS = 1800.0  # what devices are given for one program, which take seconds
GRACE_SECONDS = 9.0  # from a signal to the end, come what may; what is committed is whole anyway


class Stopped(BaseException):
    """The process was asked to end. No `except Exception` holds it up."""


class _Asked:
    """The name of the signal that came, and how much is not to be interrupted by one."""

    by = ""
    waits = 0


@contextmanager
def stoppable() -> Iterator[None]:
    """In it SIGTERM and Ctrl-C raise `Stopped` where the main thread is, or in `deferred` where it
    looks. The process ends GRACE_SECONDS later in any case, with exit code AGAIN; a second
    signal ends it at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _Asked.by = ""


@contextmanager
def deferred() -> Iterator[None]:
    """For work that ends on its own terms: a signal waits until it has `asked`, or is done."""
    _Asked.waits += 1
    try:
        yield
    finally:
        _Asked.waits -= 1
    if _Asked.by and not _Asked.waits:
        raise Stopped(_Asked.by)


def asked() -> bool:
    """Whether a signal waits."""
    return bool(_Asked.by)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _Asked.by:
        os._exit(AGAIN)
    _Asked.by = signal.Signals(number).name
    logging.info("%s: ending; the same command goes on from here", _Asked.by)
    timer = threading.Timer(GRACE_SECONDS, os._exit, [AGAIN])
    timer.daemon = True
    timer.start()
    if not _Asked.waits:
        raise Stopped(_Asked.by)


@contextmanager
def watched(what: str) -> Iterator[None]:
    """Ends the process, with the stacks of all threads, if what is inside takes longer than
    PATIENCE_SECONDS.

    For waiting on devices, which never ends if they hang. Compilation belongs outside: it may take
    long and ends by itself.
    """
    timer = threading.Timer(PATIENCE_SECONDS, _end, [PATIENCE_SECONDS, what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(seconds: float, what: str) -> None:
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    print(
        f"malt_jax: {what}: no answer from the devices in {seconds:.0f} s; the stacks are above. "
        "What is committed is whole: start the same command again.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(HUNG)
