"""The README and the documentation say what is so: links, settings, flags and paths that they name
exist. Figures and claims are for people to check."""

import pkgutil
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hooks
import pytest
import yaml
from test_architecture import LAYERS

from configs.base import get_config
from malt_jax import recipe
from malt_jax.evaluate import systems
from malt_jax.rollout import roles

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ids = [str(page.relative_to(ROOT)) for page in PAGES]

LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"--config\.([\w.]+)")
RECIPE = re.compile(r"--config=(\w+)(?=\s|$)")
SETTING = re.compile(r"`([a-z_]+(?:\.[A-Za-z_*]+)+)`")
PATH = re.compile(
    r"(?<![\w/.-])((?:malt_jax|tests|configs|launch|examples|docs|third_party)/[\w./-]*\w)"
)
MODULE = re.compile(r"(?<![\w/.-])(malt_jax(?:\.[A-Za-z_]\w*)+)(?![\w/-])")
FILE = re.compile(r"\.(json|parquet|md|py|html|png|safetensors|jsonl)$")


@cache
def keys() -> frozenset[str]:
    """Every setting by its key, roles and groups included; any role is ROLE."""
    leaves = set()

    def walk(tree: object, key: str) -> None:
        leaves.add(key)
        if isinstance(tree, dict):
            for name, value in tree.items():
                role = key == "roles"
                walk(value, f"{key}.{'ROLE' if role else name}" if key else name)

    walk(get_config().to_dict(), "")
    return frozenset(leaves - {""})


def leaves() -> list[str]:
    """The keys that hold a value."""
    return sorted(k for k in keys() if not any(other.startswith(f"{k}.") for other in keys()))


def broken_links(text: str, page: Path) -> list[str]:
    """Relative links of a page to files that are not there."""
    targets = (link.partition("#")[0] for link in LINK.findall(text) if "://" not in link)
    return [target for target in targets if target and not (page.parent / target).exists()]


def is_setting(key: str) -> bool:
    """Whether a key names a setting or a group, of any role, or matches some with a `*`."""
    key = re.sub(r"^roles\.\w+", "roles.ROLE", key)
    pattern = re.compile(re.escape(key).replace(r"\*", r"[\w.]+"))
    return any(pattern.fullmatch(known) for known in keys())


def unknown_settings(text: str) -> list[str]:
    """Flags, and `group.key` in backquotes, that are no setting. `KEY` stands for any."""
    groups = {key.partition(".")[0] for key in keys()}
    flags = [key for key in FLAG.findall(text) if key != "KEY"]
    quoted = [
        key
        for key in SETTING.findall(text)
        if key.partition(".")[0] in groups and not FILE.search(key)
    ]
    return [key for key in (*flags, *quoted) if not is_setting(key)]


def unknown_recipes(text: str) -> list[str]:
    """Values of `--config` that name no file of `configs/`. `NAME` stands for any."""
    return [
        name
        for name in RECIPE.findall(text)
        if not name.isupper() and not (ROOT / "configs" / f"{name}.py").exists()
    ]


def missing_paths(text: str) -> Iterator[str]:
    """Paths of the repository and dotted names of the package that do not exist."""
    for path in PATH.findall(text):
        if not re.search(r"\b[A-Z]+\b", path) and not (ROOT / path).exists():
            yield path
    for name in MODULE.findall(text):
        if not importable(name):
            yield name


def importable(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one or of what is in it."""
    try:
        pkgutil.resolve_name(name)
        return True
    except (ImportError, AttributeError):
        return False


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    assert not broken_links(text, page)
    assert not unknown_settings(text)
    assert not unknown_recipes(text)
    assert not list(missing_paths(text))


def test_the_recipe_of_the_roles_guide_is_a_run() -> None:
    text = (ROOT / "docs" / "guides" / "roles.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    recipe_of_guide: dict[str, Any] = {}
    exec(code, recipe_of_guide)
    settings = recipe.parse(recipe_of_guide["get_config"]().to_dict())
    assert [role.sees[-1] for role in roles.chain(settings)] == ["question", "planner", "generator"]
    assert systems.single_role(settings).sees == ("hint", "question")


def test_planted_faults_are_noticed() -> None:
    assert broken_links("[a](docs/nowhere.md#x) [b](LICENSE) [c](https://x.y/z)", README) == [
        "docs/nowhere.md"
    ]
    text = "--config.sample.temprature=1 --config.roles.planner.branching=2 `dpo.betta` `dpo.*`"
    assert unknown_settings(text) == ["sample.temprature", "dpo.betta"]
    assert unknown_recipes("--config=quikstart --config=gsm8k --config=NAME") == ["quikstart"]
    text = "`tests/test_nothing.py` tests/ROOM/test_x.py configs/base.py malt_jax.models.loud"
    assert list(missing_paths(text)) == ["tests/test_nothing.py", "malt_jax.models.loud"]


def test_every_setting_stands_in_the_reference() -> None:
    reference = hooks.settings()
    assert [key for key in leaves() if f"`config.{key}`" not in reference] == []


def test_every_mark_of_a_page_is_made_of_something() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    marks = set(re.findall(r"<!-- made: (.*?) -->", text))
    assert {f"schema {name}" for name in hooks.schemas()} <= marks
    assert [mark for mark in marks if not hooks.made(mark).strip()] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = {line.rpartition(": ")[2] for line in text.splitlines() if line.endswith(".md")}
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES[2:]}


def test_the_table_of_layers_is_the_one_that_the_tests_hold() -> None:
    rows = re.findall(
        r"^\| (\w+) \| ((?:`\w+`(?:, )?)+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    assert {layer: set(re.findall(r"\w+", rooms)) for layer, rooms in rows} == LAYERS


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["authors"] == project["authors"]
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2412.01928"}]
