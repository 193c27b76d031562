"""Paths of the settings as the system takes them."""

import os

import pytest

from malt_jax.config.places import at_home, located
from malt_jax.workdir import storage


def test_a_user_without_a_home_is_told_which_path_needs_one(monkeypatch):
    """pathlib raised RuntimeError, and the working directory got a folder `~`."""
    monkeypatch.setenv("HOME", "/somewhere")
    assert at_home("~/runs") == located("~/runs") == str(storage.at("~/runs")) == "/somewhere/runs"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without a passwd entry
    assert at_home("runs/~") == "runs/~"
    for function in (at_home, located, storage.at):
        with pytest.raises(ValueError, match=r"~/runs: no home directory is known for ~; write"):
            function("~/runs")
