"""Recipes: Python files with a function `get_config`, called by name or by path."""

from pathlib import Path

from ml_collections import ConfigDict

from malt_jax.config.names import choices, load_object
from malt_jax.config.places import at_home, shipped


def names() -> list[str]:
    """The recipes that come with the package; `base`, which is none, is left out."""
    files = shipped("configs").glob("*.py")
    return sorted(file.stem for file in files if file.stem not in ("base", "__init__"))


def path(recipe: str) -> Path:
    """The file of a recipe, given as a path, or by the name that it has in `configs/`.

    Raises ValueError, with the closest name, if there is neither.
    """
    file = Path(at_home(recipe))
    if file.is_file():
        return file
    known = file.parent.name in ("", "configs") and file.suffix in ("", ".py")
    ours = shipped("configs") / f"{file.stem}.py"
    if known and ours.is_file():
        return ours
    wanted = f"no such file, nor a recipe of that name; {choices(file.stem, names())}"
    raise ValueError(f"--config={recipe}: {wanted}")


def load(recipe: str) -> ConfigDict:
    """The settings of a recipe, given as `path` takes it. Raises ValueError naming the file if it
    does not run, or gives no ConfigDict."""
    file = path(recipe)
    config = load_object(f"{file}:get_config", "--config")()
    if not isinstance(config, ConfigDict):
        raise ValueError(f"--config: get_config of {file} gave a {type(config).__name__}")
    return config
