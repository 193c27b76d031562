"""A disk that is full: the run says so, nothing half-written counts, and with room it goes on."""

import subprocess
from pathlib import Path

import pytest
from whole import TINY, products, run

SMALL = ("--config.eval.systems=('malt',)", "--config.eval.equal_compute=False")


def mount(*args: str) -> None:
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system of a given size cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path):
    """A file system, mounted with some KiB of room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_run_goes_on_when_there_is_room(disk: Path, whole: Path):
    """It ended in a traceback of pyarrow's, tensorstore's or json's."""
    stops = []
    for kib in (64, 1200):
        mount("-o", f"remount,size={kib}k", str(disk))
        done = run(disk / "run", TINY, *SMALL)
        assert done.returncode == 1, (kib, done.stderr[-3000:])
        _, mark, why = done.stderr.rpartition("malt_jax: ")
        assert mark, done.stderr[-3000:]
        assert "No space left on device" in why, done.stderr[-3000:]
        stops.append(sorted(path.name for path in (disk / "run").iterdir()))
    assert len({tuple(names) for names in stops}) > 1, stops  # not always at the same place
    mount("-o", "remount,size=1g", str(disk))
    done = run(disk / "run", TINY, *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert products(disk / "run") == products(whole)
