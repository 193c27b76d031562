"""What the site makes from the code: `<!-- made: NAME -->` in a page is replaced by what NAME is
made of, so that no page can fall behind the code."""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the configs of a checkout

_MARK = re.compile(r"<!-- made: ([\w. ]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with every mark replaced. Raises KeyError for a mark that nothing makes."""
    return _MARK.sub(lambda mark: made(mark[1]), markdown)


def made(mark: str) -> str:
    """The Markdown of a mark: `settings`, `schema NAME`, `api PACKAGE` or `examples DIRECTORY`."""
    kind, _, name = mark.partition(" ")
    makers: dict[str, Callable[[str], str]] = {
        "settings": lambda _: settings(),
        "schema": lambda name: schema(schemas()[name]),
        "api": lambda name: "\n\n".join(f"::: {module}" for module in modules(name)),
        "examples": examples,
    }
    return makers[kind](name)


def settings() -> str:
    """Every setting: key, type, default, meaning, rule."""
    try:
        from malt_jax import recipe
    except ImportError:
        return _reference_of_base()
    return recipe.reference()


def _reference_of_base() -> str:
    lines = (ROOT / "configs" / "base.py").read_text().splitlines()
    noted = {
        m[1]: m[2]
        for m in (re.match(r' +(?:c\.[\w.]*?)?"?(\w+)"?(?::| =) .*?  # (.*)', x) for x in lines)
        if m
    }
    config = importlib.import_module("configs.base").get_config().to_dict()
    rows = []

    def walk(tree: Any, key: str) -> None:
        if not isinstance(tree, dict):
            shown = repr(tree).replace("|", "\\|")
            note = noted.get(key.rpartition(".")[2], "")
            rows.append(f"| `{key}` | `{shown[:60]}` | {note} |")
            return
        for name, value in tree.items():
            walk(value, f"{key}.{name}" if key else name)

    walk(config, "")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def schemas() -> dict[str, pa.Schema]:
    """Every Parquet file of a work directory by the name that `docs/reference/disk.md` uses."""
    from malt_jax.evaluate import audit, scoring
    from malt_jax.learn import datasets
    from malt_jax.workdir import shards

    return {
        "trees": shards.SCHEMA,
        "sft": datasets.SFT_SCHEMA,
        "dpo": datasets.DPO_SCHEMA,
        "kto": datasets.KTO_SCHEMA,
        "outcomes": scoring.SCHEMA,
        "predictions": scoring.PREDICTIONS,
        "audit": audit.SCHEMA,
    }


def schema(columns: pa.Schema) -> str:
    """A table of a schema's columns and their Arrow types."""
    rows = (f"| `{field.name}` | `{_arrow_type(field.type)}` |" for field in columns)
    return "\n".join(["| column | type |", "|---|---|", *rows])


def _arrow_type(kind: pa.DataType) -> str:
    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


def modules(name: str) -> Iterator[str]:
    """The dotted names of a module and of the public ones below it that have a docstring to
    show."""
    module = importlib.import_module(name)
    if module.__doc__:
        yield name
    for below in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not below.name.startswith("_"):
            yield from modules(f"{name}.{below.name}")


def examples(directory: str) -> str:
    """A table of a directory's programs with the first sentence of each one's docstring."""
    rows = []
    for path in sorted((ROOT / directory).glob("*.py")):
        text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        rows.append(f"| `{directory}/{path.name}` | {re.split(r'(?<=[.:]) ', text)[0]} |")
    return "\n".join(["| file | content |", "|---|---|", *rows])
