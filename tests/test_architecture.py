"""The house rules that source text can show; `CONTRIBUTING.md` gives their reasons."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "malt_jax"
MAX_LINES = 320

# Top to bottom. A room is a module or a package directly under malt_jax.
LAYERS = {
    "doorway": {"main", "api", "experiments", "stages", "recipe"},
    "story": {"evaluate", "report", "export", "plan", "serve", "tiny"},
    "engine": {"learn", "rollout"},
    "tools": {"sampler", "credit", "grading"},
    "parts": {"models", "tasks", "text"},
    "ground": {"config", "workdir", "runtime", "types"},
}
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS.values()) for room in rooms}
# In these layers no room knows another; elsewhere neighbours may, but never in a circle.
STRANGERS = {DEPTH["evaluate"], DEPTH["credit"]}


def sources() -> dict[str, Path]:
    """Dotted module name to file, for every module of the package."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    names = (file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


MODULES = sources()


def imports(source: str, modules: set[str]) -> set[str]:
    """Dotted names that `source` imports anywhere, inside functions and type checks as well.

    `from a import b` is `a.b` where that is a module of the package, and `a` otherwise.
    """
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write relative imports as absolute ones"
            base = node.module or ""
            names = {f"{base}.{alias.name}" for alias in node.names}
            imported |= {name if name in modules else base for name in names}
    return imported


def room(module: str) -> str:
    """The room of a dotted name of the package; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def faults(module: str, imported: set[str]) -> Iterator[str]:
    """What is wrong with `module` importing `imported`, one sentence each."""
    here = room(module)
    if here and here not in DEPTH:
        yield f"{module}: give `{here}` a place in LAYERS of tests/test_architecture.py"
        return
    for name in sorted(imported):
        top = name.partition(".")[0]
        if top == "torch":
            yield f"{module}: the package never imports torch"
        if top == "flax" and here != "models":
            yield f"{module}: only models/ imports flax; elsewhere parameters are plain pytrees"
        if top in {"configs", "tests"}:
            yield f"{module}: the package does not import {top}/"
        target = room(name)
        if top != PACKAGE or not target or target == here or target not in DEPTH:
            continue
        if not here:
            if target != "api":
                yield f"{module}: the package's own __init__ imports nothing of it but the api"
        elif DEPTH[target] < DEPTH[here]:
            yield f"{module}: imports go down, but `{target}` lies above `{here}`"
        elif DEPTH[target] == DEPTH[here] and DEPTH[here] in STRANGERS:
            yield f"{module}: `{here}` and `{target}` are of a layer whose rooms are strangers"


def graph() -> dict[str, set[str]]:
    names = set(MODULES)
    return {name: imports(file.read_text(), names) for name, file in MODULES.items()}


def test_every_import_respects_the_layers():
    assert MODULES
    broken = [fault for module, imported in graph().items() for fault in faults(module, imported)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("malt_jax.attic", "import json", "give `attic` a place"),
        ("malt_jax.rollout", "def f():\n    import torch.nn", "never imports torch"),
        ("malt_jax.rollout", "from flax import nnx", "only models/ imports flax"),
        ("malt_jax.config", "from configs.base import get_config", "does not import configs/"),
        ("malt_jax.sampler", "from malt_jax.stages import job", "`stages` lies above `sampler`"),
        ("malt_jax.tasks.gsm8k", "from malt_jax import rollout", "`rollout` lies above `tasks`"),
        ("malt_jax.report", "import malt_jax.evaluate", "are strangers"),
        ("malt_jax.credit", "from malt_jax import sampler", "are strangers"),
        ("malt_jax", "from malt_jax.models import load", "own __init__ imports nothing"),
    ],
)
def test_a_planted_fault_is_found(module: str, source: str, fault: str):
    broken = list(faults(module, imports(source, {"malt_jax.rollout", "malt_jax.sampler"})))
    assert len(broken) == 1
    assert fault in broken[0]


def test_what_the_layers_allow_is_not_a_fault():
    source = "import jax\nfrom malt_jax import sampler\nfrom malt_jax.models import lora"
    assert not list(faults("malt_jax.rollout", imports(source, {"malt_jax.sampler"})))
    assert not list(faults("malt_jax.models.llama", {"flax", "malt_jax.models.lora"}))


def test_no_import_goes_in_a_circle():
    inside = {name: {other for other in used if other in MODULES} for name, used in graph().items()}
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        pytest.fail("these modules import each other in a circle: " + " -> ".join(error.args[1]))


def test_recipes_start_from_the_packages_own_and_import_nothing_else():
    """So they mean the same in a checkout, in a wheel and anywhere else."""
    for file in sorted((ROOT / "configs").glob("*.py")):
        used = imports(file.read_text(), set())
        assert used <= {"malt_jax.recipe", "ml_collections"}, f"{file.name}: only recipes and data"


def test_every_library_the_package_imports_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    providers = packages_distributions()
    graphs = graph()
    for extra, of_extra in (([], False), (project["optional-dependencies"]["serve"], True)):
        declared = project["dependencies"] + extra
        distributions = {_normal(re.split(r"[<>=!~\[; ]", line)[0]) for line in declared}
        modules = [name for name in graphs if (room(name) == "serve") == of_extra]
        used = {name.partition(".")[0] for module in modules for name in graphs[module]}
        for library in sorted(used - {PACKAGE} - set(sys.stdlib_module_names)):
            provided_by = {_normal(name) for name in providers.get(library, [library])}
            assert provided_by & distributions, f"declare {library} in pyproject.toml"


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_files_stay_short():
    files = [
        file for folder in (PACKAGE, "configs", "tests") for file in (ROOT / folder).rglob("*.py")
    ]
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    long = {name: count for name, count in lines.items() if count > MAX_LINES}
    assert not long, f"split these files, the limit is {MAX_LINES} lines: {long}"


def test_modules_and_public_names_have_docstrings():
    missing = []
    for module, file in MODULES.items():
        tree = ast.parse(file.read_text())
        public = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not documented_elsewhere(module, node)
        ]
        names = {f"{module}.{node.name}": node for node in public}
        if tree.body:
            names[module] = tree
        missing += [name for name, node in names.items() if not ast.get_docstring(node)]
    assert not missing, f"these have no docstring: {missing}"


def documented_elsewhere(module: str, node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether `node` fills in an interface that another place explains once."""
    return (
        (room(module) == "tasks" and node.name in {"read_row", "reference"})  # at Task
        or any(
            ast.unparse(base) == "nnx.Module" for base in getattr(node, "bases", [])
        )  # at forward
    )


@pytest.mark.parametrize("module", ["malt_jax.planted", "configs.planted", "test_planted"])
def test_a_warning_of_our_own_is_an_error(module):
    with pytest.raises(UserWarning, match="planted"):
        exec("import warnings; warnings.warn('planted')", {"__name__": module})
