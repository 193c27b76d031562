"""The process and the world outside: stopped when asked, ended when its devices hang."""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from absl import logging

AGAIN = 75  # EX_TEMPFAIL: nothing is wrong, the same command goes on from here
HUNG = 70  # EX_SOFTWARE
PATIENCE_SECONDS = 1800.0  # what devices are given for one program, which take seconds
GRACE_SECONDS = 9.0  # from a signal to the end, come what may; what is committed is whole anyway
_RESCUE_SECONDS = 5.0  # beyond that, where something is to be rescued
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """The process was asked to end. No `except Exception` holds it up."""


class _Asked:
    """The name of the signal that came, how much is not to be interrupted by one, and what is to be
    called before the process is ended regardless."""

    by = ""
    waits = 0
    rescue: Callable[[], object] | None = None


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """In it `handler` is called for SIGTERM, Ctrl-C and the end of the terminal (SIGHUP, unless it
    is ignored). For the main thread."""
    before = {number: signal.getsignal(number) for number in _STOPPING}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def stoppable() -> Iterator[None]:
    """In it SIGTERM, Ctrl-C and the end of the terminal (SIGHUP, of a lost ssh; unless `nohup` has
    it ignored) raise `Stopped` where the main thread is, or in `deferred` where it looks. The
    process ends GRACE_SECONDS later in any case, with exit code AGAIN; a second signal ends it at
    once, but for what has a `rescue`."""
    try:
        with on_signals(_on_signal):
            yield
    finally:
        _Asked.by = ""


@contextmanager
def deferred(rescue: Callable[[], object] | None = None) -> Iterator[None]:
    """For work that ends on its own terms: a signal waits until it has `asked`, heeds it, or is
    done.

    `rescue` commits what must not be lost. With it a second signal changes nothing, and it is
    called, from another thread, if the work has not ended GRACE_SECONDS after the first.
    """
    _Asked.waits += 1
    before, _Asked.rescue = _Asked.rescue, rescue or _Asked.rescue
    try:
        yield
    finally:
        _Asked.waits -= 1
        _Asked.rescue = before
    if _Asked.by and not _Asked.waits:
        raise Stopped(_Asked.by)


def asked() -> bool:
    """Whether a signal waits."""
    return bool(_Asked.by)


def heed() -> None:
    """Raises `Stopped` if a signal waits: a place where deferred work may end."""
    if _Asked.by:
        raise Stopped(_Asked.by)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _Asked.by:
        if _Asked.rescue is None:
            os._exit(AGAIN)
        return
    _Asked.by = signal.Signals(number).name
    if number == signal.SIGHUP:
        _leave_terminal()
    logging.info("%s: ending; the same command goes on from here", _Asked.by)
    timer = threading.Timer(GRACE_SECONDS, _leave)
    timer.daemon = True
    timer.start()
    if not _Asked.waits:
        raise Stopped(_Asked.by)


def _leave_terminal() -> None:
    """Writing to a terminal that is gone is an error, which would take the place of the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(nowhere, stream)


def _leave() -> None:
    """Ends the process, after the rescue or, if that hangs, without it."""
    hard = threading.Timer(_RESCUE_SECONDS, os._exit, [AGAIN])
    hard.daemon = True
    hard.start()
    try:
        if _Asked.rescue is not None:
            _Asked.rescue()
    finally:
        os._exit(AGAIN)


@contextmanager
def watched(work: str, programs: int = 1) -> Iterator[None]:
    """Ends the process, with the stacks of all threads, if what is inside takes longer than
    PATIENCE_SECONDS for each of the `programs` that it waits for: passes of the model, say.

    For waiting on devices, which never ends if they hang. Compilation belongs outside: it may take
    long and ends by itself.
    """
    seconds = PATIENCE_SECONDS * programs
    timer = threading.Timer(seconds, _end, [seconds, work])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(seconds: float, work: str) -> None:
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    print(
        f"malt_jax: {work}: no answer from the devices in {seconds:.0f} s; the stacks are above. "
        "What is committed is whole: start the same command again.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(HUNG)
