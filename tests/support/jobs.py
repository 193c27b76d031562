"""A job over a random model."""

import json
from pathlib import Path

import small
from recipes import change, good

from malt_jax.recipe import parse
from malt_jax.stages import job


def a_job(tmp_path: Path, **changes) -> job.Job:
    config = good()
    model = tmp_path / "model"
    if not model.exists():
        model.mkdir()
        small.save(model)
    for key, value in {"workdir": str(tmp_path), "model.path": str(model), **changes}.items():
        change(config, key.replace("__", "."), value)
    return job.Job(parse(config), collects=True)


def write(path: Path, questions: list[str]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": "1"}) + "\n" for q in questions))
    return str(path)
