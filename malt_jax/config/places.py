"""Where the files that come with the package lie, and those that settings name."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> Path:
    """A folder that comes with the package (`configs`, `third_party`): in a wheel inside of it, in
    a checkout beside it."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def located(path: str) -> str:
    """A path of the settings as the system takes it: `~` is the home directory, and
    `malt_jax/tiny/model` the package's own wherever the working directory is. What the working
    directory has under that name goes before it; a hub id or a bucket's path stays as it is."""
    expanded = at_home(path)
    if expanded.startswith(f"{_PACKAGE.name}/") and not Path(expanded).exists():
        ours = _PACKAGE.parent / expanded
        return str(ours) if ours.exists() else expanded
    return expanded


def at_home(path: str) -> str:
    """A path with its `~` written out. Raises ValueError where that stands for no directory: for a
    user without a home, as in many containers, and for one that does not exist."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(
            f"{path}: no home directory is known for {path.partition('/')[0]}; write the path out"
        )
    return expanded
