"""Files that are not what was written are never read in silence."""

import contextlib
import random
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from malt_jax.learn.phases import PHASES
from malt_jax.workdir import shards, storage

ROWS = [
    {
        "prompt": f"What is {i} + {i}?",
        "completion": f"It is {2 * i}.",
        "value": 1.0,
        "question_id": str(i),
        "prompt_token_ids": list(range(i, i + 20)),
        "completion_token_ids": list(range(i, i + 9)),
    }
    for i in range(40)
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sft.parquet"
    shards.write(path, ROWS, PHASES["sft"].schema)
    assert len(shards.read_one(path)) == 40
    return path


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def test_every_flipped_bit_is_found(file: Path):
    """Parquet itself sees few of them: the control reads the same files without their checksum."""
    content = file.read_bytes()
    bits = random.Random(0).sample(range(len(content) * 8), 200)
    for bit in bits:
        file.write_bytes(flipped(content, bit))
        with pytest.raises(ValueError, match=r"sft.parquet: not readable .*damaged.* delete"):
            shards.read_one(file)
    (file.parent / ".sft.parquet.sha256").unlink()
    unseen = 0
    for bit in bits:
        file.write_bytes(flipped(content, bit))
        with contextlib.suppress(ValueError):
            unseen += len(shards.read_one(file)) == 40
    assert unseen


@pytest.mark.parametrize("size", [0, 1, 200, -1])
def test_what_was_cut_short_or_emptied_is_found(file: Path, size: int):
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"sft.parquet: not readable .* delete the file"):
        shards.read_one(file)


def test_the_checksum_is_one_that_sha256sum_reads(file: Path):
    done = subprocess.run(
        ["sha256sum", "--check", ".sft.parquet.sha256"],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "sft.parquet: OK\n"


def test_a_file_replaced_has_the_new_checksum(file: Path):
    shards.write(file, ROWS[:3], PHASES["sft"].schema)
    assert len(shards.read_one(file)) == 3


def test_a_kill_between_the_two_files_leaves_no_file(tmp_path: Path, monkeypatch):
    """The checksum comes first: a file without one would be read unchecked."""
    path = tmp_path / "one"

    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_note_digest", killed)
    with pytest.raises(KeyboardInterrupt), storage.written_whole(path, checked=True) as stream:
        stream.write(b"x")
    assert not path.exists()


def test_numbers_come_as_views_of_what_was_read(tmp_path):
    """As lists, the ids of 10^5 rows took 10 GiB."""
    path, lists = tmp_path / "a.parquet", [[1, 2, 3], [], [7]]
    schema = pa.schema([("a_ids", pa.list_(pa.int32())), ("path", pa.list_(pa.int32()))])
    shards.write(path, [{"a_ids": ids, "path": ids} for ids in lists], schema)
    rows = shards.read_one(path, arrays="_ids")
    assert [row["path"] for row in rows] == lists
    assert [row["a_ids"].tolist() for row in rows] == lists
    assert all(row["a_ids"].dtype == np.int32 for row in rows)
    assert rows[0]["a_ids"].base is not None
    shards.write(tmp_path / "b.parquet", rows, schema)
    assert (tmp_path / "b.parquet").read_bytes() == path.read_bytes()
    (only,) = shards.read_one(path, ["a_ids"], arrays="_ids")[2:]
    assert only["a_ids"].tolist() == [7]
    shards.write(path, [{"a_ids": [1, None], "path": []}], schema)
    with pytest.raises(ValueError, match=r"a.parquet: not readable \(.*null"):
        shards.read_one(path, arrays="_ids")
