"""Checkpoints through Orbax, each with a manifest of its files by which damage is found: adapters
and optimiser state, never a copy of the base.

They are written in the background, in the order of the calls. A step counts once its manifest is
there, which is written last and whole.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from malt_jax.runtime import hosts
from malt_jax.workdir import storage
from malt_jax.workdir.storage import file_hash

MANIFEST = "manifest.json"
_WAITING = 2  # copies of a state that may wait for the disk


@dataclass(frozen=True)
class Store:
    """A directory of checkpoints, `STEP/` each, and the thread that writes them."""

    directory: Path
    writer: ThreadPoolExecutor
    pending: deque[Future[None]] = field(default_factory=deque)
    failed: list[BaseException] = field(default_factory=list)  # of the writing

    def folder(self, name: str) -> "Store":
        """A store in a folder of this one, written by the same thread."""
        return replace(self, directory=self.directory / name)


@contextmanager
def opened(directory: Path) -> Iterator[Store]:
    """The store of `directory`. On leaving, what is being written is finished."""
    if hosts.first():
        for unfinished in list(directory.glob("*.orbax-checkpoint-tmp*")):  # of a killed run
            storage.remove(unfinished)
    hosts.meet()
    with ThreadPoolExecutor(1) as writer:
        store = Store(storage.absolute(directory), writer)
        yield store
        _settle(store, 0)


def save(store: Store, step: int, state: Any, keep: Callable[[], Collection[Any]]) -> None:
    """Writes `state` (a pytree of arrays) as the checkpoint of `step` in the background, in place
    of one that is there, and then removes the steps that are not in `keep()`, asked for then.

    Raises what went wrong with an earlier one. Waits only if the disk is two checkpoints behind.
    Several hosts wait for the disk: Orbax lets them meet over their devices, which a step that ran
    meanwhile would use in another order.
    """
    if hosts.several():
        return _write(store.directory, step, state, keep)
    _settle(store, _WAITING)
    # A copy: the caller's next step may take over the buffers while they are being written.
    copy = jax.tree.map(jnp.copy, state)
    store.pending.append(store.writer.submit(_write_next, store, step, copy, keep))


def restore(store: Store, like: Any) -> tuple[int, Any]:
    """The newest undamaged (step, state), shaped and sharded like `like`; (0, like) where there is
    no step.

    Steps with a file damaged, cut short or missing are passed over with a warning; one without a
    manifest was never there. Raises ValueError naming the directory if there are steps and none is
    whole, or if the one that is does not fit `like`.
    """
    finished = 0
    for step in sorted(steps(store), reverse=True):
        path = store.directory / str(step)
        if fault := damage(path):
            logging.warning("%s; this checkpoint is passed over", fault)
            finished += (path / MANIFEST).exists()
            continue
        return step, load(path, like)
    if finished:
        raise ValueError(
            f"{store.directory}: every checkpoint is damaged ({fault}); delete the directory, the "
            "phase then starts from its beginning"
        )
    return 0, like


def load(path: Path, like: Any) -> Any:
    """The state of one checkpoint, shaped and sharded like `like`. Raises ValueError naming the
    file if it is damaged, or the directory if it does not fit."""
    remedy = f"delete {path.parent}, what it holds is then made again"
    if fault := damage(path):
        raise ValueError(f"{fault}; {remedy}")
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    try:
        with ocp.StandardCheckpointer() as orbax:
            return orbax.restore(path, abstract)
    except Exception as error:
        raise ValueError(f"{path}: does not fit these settings ({error}); {remedy}") from error


def steps(store: Store) -> list[int]:
    """The steps in a store, whole or not."""
    entries = store.directory.iterdir() if store.directory.is_dir() else ()
    names = [path.name for path in entries if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, by its manifest, in words that name the file; empty
    if nothing is."""
    manifest = path / MANIFEST
    if not manifest.exists():
        return f"{manifest}: missing, so the checkpoint was not finished"
    try:
        content = json.loads(manifest.read_bytes())
        files = {str(name): (int(row["size"]), row["sha256"]) for name, row in content.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{manifest}: damaged ({error})"
    for name, (size, digest) in files.items():
        file = path / name
        if not file.is_file():
            return f"{file}: missing"
        if (stored := storage.size(file)) != size:
            return f"{file}: {stored} bytes, not the {size} that were written"
        if file_hash(file) != f"sha256:{digest}":
            return f"{file}: damaged, its bytes are not those that were written"
    # A manifest whose damage took names out of it would leave those files unread.
    if files.keys() != _files(path).keys():
        return f"{manifest}: damaged, it does not name every file"
    return ""


def _write_next(store: Store, step: int, state: Any, keep: Callable[[], Collection[Any]]) -> None:
    """Nothing is written after what could not be: a checkpoint relies on those before it, on the
    best adapter so far, say."""
    if store.failed:
        return
    try:
        _write(store.directory, step, state, keep)
    except BaseException as error:
        store.failed.append(error)
        raise


def _write(directory: Path, step: int, state: Any, keep: Callable[[], Collection[Any]]) -> None:
    path = directory / str(step)
    # Not Orbax's asynchronous one: this thread is the background already, and that one's threads
    # outlive an error, the process with them, until they time out.
    with storage.naming(path), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
        orbax.save(path, args=ocp.args.StandardSave(state), force=True)
    if hosts.first():
        _commit(path, keep)
    hosts.meet()


def _commit(path: Path, keep: Callable[[], Collection[Any]]) -> None:
    """Writes the manifest, by which a checkpoint counts, and removes those that are not kept."""
    storage.write_json(
        path / MANIFEST,
        {
            name: {"size": storage.size(file), "sha256": file_hash(file).removeprefix("sha256:")}
            for name, file in _files(path).items()
        },
    )
    kept = keep()
    for other in list(path.parent.iterdir()):
        if other.name.isdigit() and int(other.name) not in kept:
            storage.remove(other)


def _files(path: Path) -> dict[str, Path]:
    files = {file.relative_to(path).as_posix(): file for file in storage.files(path)}
    return {name: file for name, file in files.items() if name != MANIFEST}


def _settle(store: Store, most: int) -> None:
    """Waits until at most `most` checkpoints are still to be written."""
    while len(store.pending) > most:
        store.pending.popleft().result()
