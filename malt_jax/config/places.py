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
    expanded = os.path.expanduser(path)
    if expanded.startswith(f"{_PACKAGE.name}/") and not Path(expanded).exists():
        ours = _PACKAGE.parent / expanded
        return str(ours) if ours.exists() else expanded
    return expanded


def expanded(path: str | Path) -> Path:
    """A path with `~` as the home directory. Raises ValueError where nobody says which that is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path}: HOME is not set, so that ~ has no meaning; give the whole path"
        ) from None
