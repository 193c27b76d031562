"""How often the test split was read, in `test_reads.json`: of a suite in the main work directory.

Settings that are chosen by figures of the test split fit its questions. The record cannot keep
anybody from it; it says how often there was occasion to.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from malt_jax.workdir import inputs, storage
from malt_jax.workdir.run_record import flat, now
from malt_jax.workdir.storage import files, read_json

Row = dict[str, Any]
VARIANTS = "variants"
"""The directory of a suite's other work directories, below the main one."""


def suite_of(workdir: Path) -> Path:
    """The main work directory of the suite that a work directory belongs to, or itself."""
    while workdir.parent.name == VARIANTS:
        workdir = workdir.parent.parent
    return workdir


def configuration(workdir: Path, config: Mapping[str, Any], base: str, free: Sequence[str]) -> str:
    """A hash of the settings that shape a result, but for the seed and where files lie.

    `base` is the hash of the base model, `free` are patterns of the settings that shape nothing.
    What comes from the run itself (another role's adapter, say) counts by its place, so that it is
    the same for every seed; other files count by their content.
    """
    root = str(inputs.place(str(suite_of(workdir))))
    settings = {
        key: value
        for key, value in flat(json.loads(json.dumps(config))).items()
        if not any(fnmatchcase(key, pattern) for pattern in free)
    }
    hashed = inputs.digests(settings)
    for key, value in settings.items():
        path = inputs.place(value) if inputs.is_path(key) and isinstance(value, str) else ""
        if path.startswith(f"{root}{os.sep}"):
            hashed[key] = os.path.relpath(path, inputs.place(str(workdir)))
    content = settings | hashed | {"model.path": base}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def begin(workdir: Path, read: Row) -> None:
    """Notes that an evaluation of the test split begins, unless the same was begun before. `read`
    says which: `configuration`, `seed` and `test`."""
    rows = recorded(workdir)
    if _last(rows, read) is None:
        _write(workdir, [*rows, read | {"at": now(), "finished": False}])


def end(workdir: Path, read: Row, before: int) -> None:
    """Notes that it ended. One that ended before counts again if it drew samples: if more files are
    `stored` now than there were `before`."""
    rows = recorded(workdir)
    last = _last(rows, read)
    if last is None or (last["finished"] and stored(workdir) > before):
        rows.append(read | {"at": now(), "finished": True})
    elif last["finished"]:
        return
    else:
        last["finished"] = True
    _write(workdir, rows)


def recorded(workdir: Path) -> list[Row]:
    """All reads of the suite that a work directory belongs to, in order."""
    path = suite_of(workdir) / "test_reads.json"
    return list(read_json(path)["reads"]) if path.exists() else []


def counts(rows: Sequence[Row], test: str) -> tuple[int, int]:
    """How many reads of one test set there were, and by how many configurations."""
    of_test = [row["configuration"] for row in rows if row["test"] == test]
    return len(of_test), len(set(of_test))


def test_set(config: Mapping[str, Any]) -> str:
    """The name of the test set that a config evaluates on: TASK:PATH."""
    return f"{config['data']['task']}:{config['data']['eval']}"


def _last(rows: Sequence[Row], read: Row) -> Row | None:
    same = (row for row in reversed(rows) if all(row[key] == read[key] for key in read))
    return next(same, None)


def stored(workdir: Path) -> int:
    """How many files of samples an evaluation has left."""
    return sum(path.suffix == ".parquet" for path in files(workdir / "eval"))


def _write(workdir: Path, rows: Sequence[Row]) -> None:
    storage.write_json(suite_of(workdir) / "test_reads.json", {"reads": list(rows)})
