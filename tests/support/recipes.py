"""Configs as plain dictionaries, and changes to them."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("base", "__init__"))


def load(path: Path) -> dict:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


def good() -> dict:
    return load(ROOT / "configs" / "quickstart.py")


def change(config: dict, key: str, value) -> dict:
    *groups, last = key.split(".")
    place = config
    for group in groups:
        place = place[group]
    place[last] = value
    return config
