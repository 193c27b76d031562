"""SIGKILL at random moments of a whole run: what it ends with is the same, to the bit."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from whole import ROOT, TINY, command, products, run

OFTEN = ("--config.sft.checkpoint_every=1", "--config.dpo.checkpoint_every=1")  # changes no result
LONGER = ("--config.sft.epochs=6", "--config.dpo.epochs=6", *OFTEN)


def all_products(workdir: Path) -> dict[str, str]:
    """The digests of everything that later runs and readers depend on."""
    results = json.loads((workdir / "eval" / "results.json").read_text())
    del results["seconds"]
    return products(workdir) | {"eval/results.json": json.dumps(results)}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, str]:
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    done = run(workdir, TINY, *LONGER)
    assert done.returncode == 0, done.stderr[-3000:]
    return all_products(workdir)


def killed(
    workdir: Path, kills: int, seed: int, flags: tuple[str, ...] = LONGER, forget: str = ""
) -> Counter:
    """Runs a job through `kills` kills; how many hit each stage."""
    plan = {
        "argv": command(workdir, TINY, *flags)[2:],
        "seed": seed,
        "kills": kills,
        "seconds": 0.05 if forget else 0.7,
        "forget": forget,
        "log": str(workdir.parent / "log"),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "killing.py"), json.dumps(plan)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ended = json.loads(done.stdout.splitlines()[-1])
    assert ended["code"] == 0, (workdir.parent / "log").read_text()[-3000:]
    return Counter(ended["hit"])


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path, whole: Path):
    killed(tmp_path / "run", 4, 0, OFTEN)
    assert all_products(tmp_path / "run") == all_products(whole)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path, unbroken):
    hit: Counter = Counter()
    seed = 1
    while sum(hit.values()) < 200:
        workdir = tmp_path / str(seed) / "run"
        workdir.parent.mkdir()
        hit += killed(workdir, 25, seed)
        assert all_products(workdir) == unbroken, seed
        seed += 1
    assert set(hit) >= {"collect", "train", "evaluate"}, hit
    print(hit)


@pytest.mark.slow
def test_rounds_killed_again_and_again_end_as_those_that_were_not(tmp_path: Path):
    """Kills fall in any stage of either round, in the choice of a temperature, and between."""
    flags = (
        *OFTEN,
        "--config.rounds.count=2",
        "--config.rounds.temperatures=(0.3,1.0)",
        "--config.rounds.temperature_questions=2",
        "--config.rounds.replay=1",
        "--config.rounds.replay_weight=0.5",
        "--config.data.development_questions=4",
    )
    whole = tmp_path / "whole" / "run"
    done = run(whole, TINY, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    workdir = tmp_path / "killed" / "run"
    workdir.parent.mkdir()
    hit = killed(workdir, 12, 3, flags)
    assert sum(hit.values()) > 5, hit
    for directory in ("", "rounds/1", "rounds/2"):
        assert all_products(workdir / directory) == all_products(whole / directory)
    rounds = (place / "rounds" / "rounds.json" for place in (workdir, whole))
    assert next(rounds).read_text() == next(rounds).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("forget", ["optimiser", "position"])
def test_a_restore_that_forgets_is_found(tmp_path: Path, whole: Path, forget: str):
    """The control: the same test, with a planted fault, fails. Kills at any moment of the training
    fell where there was no checkpoint yet, or none to lose anything of."""
    killed(tmp_path / "run", 3, 0, OFTEN, forget)
    assert all_products(tmp_path / "run") != all_products(whole)
