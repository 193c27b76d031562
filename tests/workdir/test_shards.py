"""Shards of questions: who writes which, what is kept of one that is not whole, and what is none of
this run's."""

import logging
import shutil

import pytest
from trees import grow_nothing

from malt_jax.runtime import hosts
from malt_jax.workdir import shards


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "shard-00000.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match=r"shard-00000.parquet: not readable .* delete"):
        shards.finished(tmp_path)
    with pytest.raises(ValueError, match=r"shard-00000.parquet: not readable .* delete"):
        grow_nothing(tmp_path, [])


def test_hosts_write_the_shards_that_one_would(tmp_path):
    """Each its own, a resumed one only what is missing; and none goes on without the others'."""
    calls = []
    with pytest.raises(ValueError, match=r"shard-00001.parquet: .* all hosts share"):
        grow_nothing(tmp_path / "two", calls, hosts.Part(0, 2))
    grow_nothing(tmp_path / "two", calls, hosts.Part(1, 2))
    grow_nothing(tmp_path / "one", calls)
    assert calls == [["q0", "q1", "q4"], ["q2", "q3"], ["q0", "q1", "q2", "q3", "q4"]]
    alone, together = (
        {path.name: path.read_bytes() for path in shards.paths(tmp_path / name)}
        for name in ("one", "two")
    )
    assert list(alone) == [f"shard-0000{i}.parquet" for i in range(3)]
    assert alone == together
    (tmp_path / "two" / "shard-00000.parquet").unlink()
    grow_nothing(tmp_path / "two", calls, hosts.Part(0, 3))
    assert calls[-1] == ["q0", "q1"]


def test_a_host_in_step_that_does_not_write_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="all hosts share"):
        grow_nothing(tmp_path, [], hosts.Part(writes=False))
    assert not list(tmp_path.iterdir())


def test_a_shard_of_other_questions_is_named(tmp_path):
    grow_nothing(tmp_path, [])
    (tmp_path / "shard-00000.parquet").rename(tmp_path / "shard-00001.parquet")
    (tmp_path / ".shard-00001.parquet.sha256").unlink()
    with pytest.raises(ValueError, match=r"shard-00001.parquet: holds other questions .* move"):
        grow_nothing(tmp_path, [])


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_done_of_a_shard_is_kept_when_the_rest_fails(tmp_path):
    calls = []
    grow_nothing(tmp_path / "whole", calls)
    with pytest.raises(OSError, match="planted"):
        grow_nothing(tmp_path / "broken", calls, fails_at="q3")
    assert [path.name for path in shards.paths(tmp_path / "broken")] == ["shard-00000.parquet"]
    assert shards.finished(tmp_path / "broken") == {"q0", "q1"}  # no reader takes the part
    grow_nothing(tmp_path / "broken", calls)
    assert calls[-1] == ["q3", "q4"]
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_part_that_is_damaged_is_asked_again_and_one_of_other_questions_is_named(
    tmp_path, caplog
):
    with pytest.raises(OSError, match="planted"):
        grow_nothing(tmp_path, [], fails_at="q3")
    partial = tmp_path / "partial-00001.parquet"
    content, calls = partial.read_bytes(), []
    partial.write_bytes(content[:-9])
    with caplog.at_level(logging.WARNING):
        grow_nothing(tmp_path, calls)
    assert "partial-00001.parquet: damaged; its questions are asked again" in caplog.text
    assert calls == [["q2", "q3", "q4"]]
    assert not partial.exists()
    (tmp_path / "shard-00002.parquet").unlink()
    (tmp_path / "partial-00002.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"partial-00002.parquet: holds other questions .*'q2'"):
        grow_nothing(tmp_path, calls)


def test_a_shard_that_would_count_twice_is_named(tmp_path, caplog):
    """A copy, or one of another `questions_per_shard`, was read beside the others."""
    grow_nothing(tmp_path, [])
    shutil.copy(tmp_path / "shard-00000.parquet", tmp_path / "shard-00000-copy.parquet")
    with caplog.at_level(logging.WARNING):
        grow_nothing(tmp_path, [])
    assert "shard-00000-copy.parquet: not the name of a shard" in caplog.text
    assert len(shards.finished(tmp_path)) == len(list(shards.read(tmp_path))) == 5
    shutil.copy(tmp_path / "shard-00000.parquet", tmp_path / "shard-00007.parquet")
    with pytest.raises(ValueError, match=r"shard-00007.parquet: none of the 3 .*: move it out"):
        grow_nothing(tmp_path, [])
    with pytest.raises(ValueError, match=r"shard-00007.parquet: .* 'q[01]', as does shard-00000"):
        shards.finished(tmp_path)
