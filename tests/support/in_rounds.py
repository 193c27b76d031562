"""A run of several rounds in this process, with training replaced: an adapter follows from the rows
that it would be trained on, and from the one that it starts from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import pytest
from recipes import change, good
from whole import TINY, products

from malt_jax import export, recipe, stages
from malt_jax.models import lora
from malt_jax.stages import train

TWO = {
    "model.path": str(TINY),
    "rounds.count": 2,
    "data.train_questions": 4,
    "data.development_questions": 3,
    "data.eval_questions": 2,
    "sample.rows": 24,
    "sample.questions_per_shard": 2,
    "credit.threshold": 0.0,
    "eval.systems": ("malt", "malt_greedy"),
    "eval.equal_compute": False,
    "eval.resamples": 10,
}


def config(workdir: Path, **changes: Any) -> dict[str, Any]:
    """The quickstart of two rounds over four questions, with other values by key, `__` for dots."""
    values = good()
    given = {key.replace("__", "."): value for key, value in changes.items()}
    for key, value in {"workdir": str(workdir), **TWO, **given}.items():
        change(values, key, value)
    return values


def run(workdir: Path, *names: str, **changes: Any) -> Path:
    """Runs the stages, all of a job of rounds if none is named; the work directory."""
    values = config(workdir, **changes)
    parsed = recipe.parse(values)
    stages.run(parsed, values, names or stages.in_order(parsed.rounds.count))
    return workdir


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the training of a role."""
    monkeypatch.setattr(train, "train_role", pretend)


def pretend(workdir: Path, settings: Any, model: Any, mesh: Any, role: str) -> lora.Adapter:
    digest = hashlib.sha256(role.encode())
    for phase in settings.roles[role].train:
        digest.update((workdir / "datasets" / role / f"{phase}.parquet").read_bytes())
    start = export.starting_adapter(settings, model, role)
    for leaf in jax.tree.leaves(start):
        digest.update(leaf.tobytes())
    key, shape = jax.random.key(int.from_bytes(digest.digest()[:4])), settings.lora
    fresh = lora.init(model.config, key, rank=shape.rank, alpha=shape.alpha, targets=shape.targets)
    return jax.tree.map(lambda x: x + 0.05 * jax.random.normal(key, x.shape), fresh)


def everything(workdir: Path) -> dict[str, str]:
    """What a run of rounds ends with, but for times and paths of its own."""
    files = {}
    for directory in (workdir, *sorted(workdir.glob("rounds/[0-9]"))):
        place = directory.relative_to(workdir).as_posix()
        files |= {f"{place}/{name}": digest for name, digest in products(directory).items()}
        results = json.loads((directory / "eval" / "results.json").read_text())
        del results["seconds"]
        files[f"{place}/results"] = json.dumps(results)
    return files | {"table": (workdir / "rounds" / "rounds.json").read_text()}
