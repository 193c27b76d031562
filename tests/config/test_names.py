"""Objects of the user's own: files are modules like any other."""

import pickle
from pathlib import Path

import pytest

from malt_jax.config.names import load_module, load_object

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Kept:
    at: float = {value}

KEPT = Kept()
"""


def test_a_file_is_there_by_name_before_it_runs(tmp_path: Path):
    """Dataclasses of postponed annotations, and pickle, look their module up by its name."""
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.format(value=1))
    kept = load_object(f"{file}:KEPT", "--stage")
    assert pickle.loads(pickle.dumps(kept)) == kept
    assert load_object(f"{file}:KEPT", "--stage") is kept
    file.write_text(SOURCE.format(value=2))
    assert load_object(f"{file}:KEPT", "--stage").at == 2


def test_files_of_one_name_are_two_modules(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(SOURCE.format(value=1))
    first, second = (load_module(str(tmp_path / folder / "mine.py")) for folder in ("a", "b"))
    assert first.KEPT is not second.KEPT
    assert first.__name__ != second.__name__


def test_a_file_that_failed_is_run_again(tmp_path: Path):
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"--config: .*broken.py does not import: ZeroDiv"):
            load_object(f"{file}:get_config", "--config")
