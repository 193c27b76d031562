"""A damaged checkpoint is never loaded: not for a bit, a length or a file."""

import errno
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from saving import everything, restored, saved, state

from malt_jax.workdir import checkpoints


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("two"), 10, 20)


def files(directory: Path) -> list[Path]:
    return sorted(f.relative_to(directory) for f in directory.rglob("*") if f.is_file())


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def cut(file: Path, bit: int) -> None:
    file.write_bytes(file.read_bytes()[: bit // 8])


def delete(file: Path, bit: int) -> None:
    file.unlink()


def test_the_newest_step_comes_back_to_the_bit(two):
    step, adapter_state = restored(two)
    assert step == 20
    jax.tree.map(np.testing.assert_array_equal, adapter_state, state(20))


@pytest.mark.parametrize("harm", [flip, cut, delete])
def test_damage_to_any_file_is_found_and_the_step_before_is_used(harm, two, tmp_path, caplog):
    """In every file in turn, at its start, somewhere in it and at its last bit."""
    names, rng = files(two / "20"), np.random.default_rng(0)
    assert len(names) > 5
    for name in names:
        # Without a last newline, which a manifest can lose and still say the same.
        size = 8 * len((two / "20" / name).read_bytes().removesuffix(b"\n"))
        for bit in {0, int(rng.integers(max(size, 1))), size - 1} if size else ():
            directory = tmp_path / "damaged"
            shutil.copytree(two, directory)
            harm(directory / "20" / name, bit)
            fault = checkpoints.damage(directory / "20")
            # What a damaged manifest says of another file is not that file's fault.
            assert str(name) in fault or (fault and name.name == checkpoints.MANIFEST), (name, bit)
            with pytest.raises(ValueError, match="delete"):
                checkpoints.load(directory / "20", state(0))
            shutil.rmtree(directory)
    shutil.copytree(two, directory)
    harm(directory / "20" / names[-1], 0)
    with caplog.at_level(logging.WARNING):
        step, adapter_state = restored(directory)
    assert step == 10
    assert "passed over" in caplog.text
    assert str(directory / "20") in caplog.text
    jax.tree.map(np.testing.assert_array_equal, adapter_state, state(10))


def test_every_bit_of_a_manifest_counts(two, tmp_path):
    shutil.copytree(two, tmp_path / "copy")
    manifest = tmp_path / "copy" / "20" / checkpoints.MANIFEST
    whole = manifest.read_bytes()
    for bit in range(0, 8 * len(whole), 37):
        flip(manifest, bit)
        assert checkpoints.damage(manifest.parent), bit
        manifest.write_bytes(whole)
    assert not checkpoints.damage(manifest.parent)


def test_a_step_that_was_not_finished_is_passed_over(two, tmp_path):
    """Killed between Orbax's last rename and the manifest's."""
    shutil.copytree(two, tmp_path / "copy")
    (tmp_path / "copy" / "20" / checkpoints.MANIFEST).unlink()
    assert restored(tmp_path / "copy")[0] == 10


def test_a_first_step_that_was_not_finished_is_no_step(two, tmp_path):
    """It ended every further start: "every checkpoint is damaged"."""
    shutil.copytree(two / "10", tmp_path / "copy" / "10")
    (tmp_path / "copy" / "10" / checkpoints.MANIFEST).unlink()
    assert restored(tmp_path / "copy")[0] == 0


def test_nothing_is_written_after_what_could_not_be(tmp_path, monkeypatch):
    """Behind a best adapter that the disk did not take the checkpoint of that step was written, and
    a start from there looked for the adapter in vain."""
    real = checkpoints._commit

    def commit(path, keep):
        if path.parent.name == "best":
            raise OSError(errno.EIO, "Input/output error")
        real(path, keep)

    def save_both() -> None:
        with checkpoints.opened(tmp_path) as store:
            checkpoints.save(store.folder("best"), 1, state(1), lambda: {1})
            checkpoints.save(store, 1, state(1), lambda: {1})

    monkeypatch.setattr(checkpoints, "_commit", commit)
    with pytest.raises(OSError, match="Input/output"):
        save_both()
    monkeypatch.undo()
    assert restored(tmp_path)[0] == 0


def test_no_good_step_is_an_error_and_no_step_is_none(two, tmp_path):
    assert restored(tmp_path / "empty")[0] == 0
    shutil.copytree(two, tmp_path / "copy")
    for step in ("10", "20"):
        flip(tmp_path / "copy" / step / "manifest.ocdbt", 9)
    with pytest.raises(
        ValueError, match=rf"{tmp_path / 'copy'}: every checkpoint is damaged .*del"
    ):
        restored(tmp_path / "copy")


def test_a_checkpoint_of_another_shape_is_refused(two):
    other = {"adapter": {"a": jnp.zeros((4, 5))}, "opt_state": jnp.int32(0)}
    with (
        checkpoints.opened(two) as store,
        pytest.raises(ValueError, match=r"20: does not fit these settings"),
    ):
        checkpoints.restore(store, other)


def test_old_steps_go_once_the_new_one_is_whole_and_a_damaged_one_is_replaced(tmp_path):
    saved(tmp_path, 1, 2)
    flip(tmp_path / "2" / "_METADATA", 5)
    with checkpoints.opened(tmp_path) as store:
        assert checkpoints.restore(store, state(0))[0] == 1
        checkpoints.save(store, 2, state(2), lambda: everything(store))
        checkpoints.save(store, 3, state(3), lambda: everything(store)[-2:])
    assert everything(store) == [2, 3]
    assert not checkpoints.damage(tmp_path / "2")


def test_saving_takes_a_copy(tmp_path):
    """The caller's next step may take over the buffers."""
    mine = state(7)
    with checkpoints.opened(tmp_path) as store:
        checkpoints.save(store, 1, mine, lambda: [1])
        mine["adapter"]["a"].delete()
    assert restored(tmp_path)[0] == 1


def test_a_failed_save_keeps_no_process_from_ending(tmp_path):
    """Orbax's asynchronous saving left three threads that did, until they timed out."""
    (tmp_path / "best").write_text("a file where a folder should be")
    code = (
        "import sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from malt_jax.workdir import checkpoints\n"
        "with checkpoints.opened(Path(sys.argv[1])) as store:\n"
        "    checkpoints.save(store, 1, {'a': np.ones(3)}, lambda: [1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "best")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Error" in done.stderr.splitlines()[-1]
    assert "best" in done.stderr


def test_an_error_of_the_background_comes_out(tmp_path, monkeypatch):
    """A full disk passed unseen until the end of a phase, or beyond it."""

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints.storage, "write_json", full)
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path / "once", 1)

    def many() -> None:
        with checkpoints.opened(tmp_path) as store:
            for step in range(1, 20):
                checkpoints.save(store, step, state(step), lambda: [])
                assert step < 10, "ten saves, and no word of the first"

    with pytest.raises(OSError, match="disk full"):
        many()
