"""The examples run, and do what they say."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import notebook
import numpy as np
import pyarrow.parquet as pq
import pytest

from malt_jax import recipe
from malt_jax.config import files

ROOT = Path(__file__).parents[2]


def test_malt_in_one_page_trains_every_role_of_a_team(capsys):
    """A run too small to learn much: the page grows, grades, values and trains."""
    spec = importlib.util.spec_from_file_location("page", ROOT / "examples/malt_in_one_page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    page.BATCH = 4
    before, after = page.main(train_questions=4, eval_questions=4)
    said = capsys.readouterr().out
    for role, samples in (("generator", 12), ("verifier", 36), ("refiner", 108)):
        assert f"{role}: {samples} samples" in said
    for one_pass, vote in (before, after):  # of 12 passes over 4 questions
        for accuracy, count in ((one_pass, 12), (vote, 4)):
            assert 0 <= accuracy <= 1
            assert accuracy * count == pytest.approx(round(accuracy * count))
    assert len((ROOT / "examples/malt_in_one_page.py").read_text().splitlines()) <= 200


def test_the_notebook_s_pairs_are_of_one_parent():
    """Its cells run, one after the other, up to the one that trains."""
    page = {"__name__": "__main__"}
    for cell in cells()[2:-1]:
        exec(cell, page)
    nodes = [page["Node"]([i // 3], [i], {}) for i in range(9)]
    values = np.array([1, 1 / 3, 0, 1, 1, 1, 0.5, 0, 0.5], np.float32)
    positives = [node.completion for node in page["positives"](nodes, values)]
    assert positives == [[0], [1], [3], [4], [5], [6], [8]]
    pairs = [(a.completion, b.completion) for a, b in page["pairs"](nodes, values)]
    assert pairs == [([0], [2]), ([6], [7])]


OWN_ROLES = ROOT / "examples/own_roles.py"


def test_the_recipe_of_own_roles_is_one():
    assert recipe.parse(files.load(str(OWN_ROLES)).to_dict()).chain == (
        "solver",
        "auditor",
        "closer",
    )


@pytest.mark.slow
def test_own_roles_learn_what_their_recipe_says(tmp_path):
    small = {
        **{"workdir": tmp_path / "run", "data.train_questions": 6, "data.eval_questions": 4},
        **{"sample.rows": 24, "sample.questions_per_shard": 3, "credit.threshold": 0.0},
        **{f"{phase}.{key}": n for phase in ("sft", "dpo", "kto") for key, n in
           (("epochs", 1), ("batch", 4))},
        **{"eval.resamples": 100, "eval.equal_compute": False},
    }  # fmt: skip
    flags = [f"--config.{key}={value}" for key, value in small.items()]
    done = subprocess.run(
        [sys.executable, "-m", "malt_jax.main", f"--config={OWN_ROLES}", *flags],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = tmp_path / "run"
    assert {path.name for path in (run / "export").iterdir()} >= {"solver", "auditor", "closer"}
    phases = {path.relative_to(run).as_posix() for path in run.glob("checkpoints/*/*")}
    assert {"checkpoints/auditor/kto", "checkpoints/closer/dpo"} <= phases
    assert "checkpoints/solver/dpo" not in phases
    nodes = pq.read_table(run / "trees/shard-00000.parquet", columns=["role", "parent"])
    roles = nodes.column("role").to_pylist()
    assert (roles.count("solver"), roles.count("auditor"), roles.count("closer")) == (6, 18, 54)
    assert re.search(r"malt_mv +\d", done.stderr + done.stdout)


def cells() -> list[str]:
    """The texts of the stored notebook's cells."""
    stored = json.loads(notebook.PAGE.with_suffix(".ipynb").read_text())
    return ["".join(cell["source"]) for cell in stored["cells"]]


def test_the_notebook_is_the_page_cell_by_cell():
    """`python tests/support/notebook.py` makes it anew."""
    page = notebook.PAGE.read_text()
    assert notebook.PAGE.with_suffix(".ipynb").read_text() == notebook.text(page)
    code = "\n".join(cells()[2:-1])
    names = set(re.findall(r"^(?:def|class) (\w+)", page, re.MULTILINE))
    assert names == set(re.findall(r"^(?:def|class) (\w+)", code, re.MULTILINE))
    assert cells()[-1] == "main()"


@pytest.mark.parametrize(
    ("program", "devices", "installed"),
    [
        ("/usr/bin/nvidia-smi", (), "malt-jax[gpu]"),
        ("/usr/bin/nvidia-smi", ("/dev/vfio",), "malt-jax[gpu]"),  # a GPU handed through
        (None, ("/dev",), "malt-jax[tpu]"),
        (None, ("/dev/vfio",), "malt-jax[tpu]"),
        (None, (), "malt-jax"),
    ],
)
def test_the_notebook_installs_what_the_host_needs(program, devices, installed, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: program)
    monkeypatch.setattr(Path, "glob", lambda folder, _: [folder] * (str(folder) in devices))
    *code, command = cells()[1].splitlines()
    names: dict[str, str] = {}
    exec("\n".join(code), names)
    assert command == '%pip install --quiet "malt-jax{extra}"'  # IPython fills in the brackets
    assert f"malt-jax{names['extra']}" == installed
    monkeypatch.undo()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert names["extra"].strip("[]") in {*extras, ""}
