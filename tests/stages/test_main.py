"""The whole job through its front door: every stage, every file, and a run that is killed and
started again."""

import json
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import small
from whole import TINY, products, run

from malt_jax.workdir import lock


def nodes(workdir: Path) -> dict:
    rows = pq.read_table(workdir / "trees").to_pylist()
    return {(row["question_id"], *row["path"]): row for row in rows}


def test_the_job_leaves_the_contracts_files(whole):
    for name in (
        "config.json",
        "data.json",
        "datasets/yield.json",
        "datasets/verifier/dpo.parquet",
        "eval/results.json",
        "eval/predictions.parquet",
        "report/index.html",
        "report/report.md",
    ):
        assert (whole / name).stat().st_size > 0, name
    recorded = json.loads((whole / "config.json").read_text())
    assert recorded["config"]["data"]["train_questions"] == 6
    assert recorded["base_hash"].startswith("sha256:")
    assert recorded["versions"]["jax"]
    assert len(nodes(whole)) == 6 * 39
    results = json.loads((whole / "eval" / "results.json").read_text())
    shown = {name + how for name in ("sa", "ma", "malt") for how in ("", "_greedy", "_mv")}
    assert set(results["systems"]) == shown
    assert all(score["n"] == 4 for score in results["systems"].values())
    exported = {path.name for path in (whole / "export").iterdir()}
    assert exported == {"generator", "verifier", "refiner", "sft"}
    assert {path.name for path in (whole / "export" / "sft").iterdir()} == {"verifier", "refiner"}
    for role in exported - {"sft"}:
        record = json.loads((whole / "export" / role / "malt.json").read_text())
        assert record["results"]["systems"] == results["systems"]
        base = json.loads((whole / "checkpoints" / role / "sft" / "base.json").read_text())
        assert base["base_hash"] == record["base_hash"] == recorded["base_hash"]


def test_no_secret_of_the_environment_is_written_anywhere(whole):
    looked_at = 0
    for path in whole.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content = repr(pq.read_table(path).to_pylist()).encode()
            assert b"canary-" not in content, path
            looked_at += 1
    assert looked_at > 30


def test_a_finished_run_does_nothing_again(whole):
    stamp = {path: path.stat().st_mtime_ns for path in whole.glob("trees/*")}
    stamp |= {path: path.stat().st_mtime_ns for path in whole.glob("export/**/*")}
    assert run(whole, TINY).returncode == 0
    assert stamp == {path: path.stat().st_mtime_ns for path in stamp}


def test_the_team_can_be_asked_while_a_run_goes_on(whole):
    """It takes no lock, writes nothing, and prints its answer alone."""
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name != "lock"}
    with lock.held(whole):
        done = run(whole, TINY, "--stage=solve", "--question=1+2+3+4+5", "--votes=1")
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    assert {*json.loads(line)["transcript"][0]} == {"generator", "verifier", "refiner"}
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.name != "lock"}
    assert after == before


def test_other_dpo_settings_go_on_from_the_sft_that_is_done(whole, tmp_path):
    """What the refusal says to delete is what DPO made, and enough. All phases' settings were bound
    by all of checkpoints/: another dpo.beta cost the SFT of every role. And what the last role made
    of other critiques was bound by nothing: it would have stood beside another team's answers."""
    workdir = Path(shutil.copytree(whole, tmp_path / "run"))
    flags = ("--config.eval.critiques=True", "--config.eval.equal_compute=False")
    assert run(workdir, TINY, *flags).returncode == 0
    changed = ("--config.dpo.beta=0.5", *flags)
    refused = run(workdir, TINY, *changed)
    assert refused.returncode != 0
    line = next(line for line in refused.stderr.splitlines() if ", or delete " in line)
    named = {Path(place) for place in line.split(", or delete ")[1].split(", ")}
    roles = ("verifier", "refiner")
    made = {workdir / "checkpoints" / role / "dpo" for role in roles}
    made |= {workdir / "export" / role for role in roles}
    made |= {workdir / "eval" / team for team in ("malt", "critique-other", "critique-none")}
    assert named == made
    for place in named:
        shutil.rmtree(place)
    kept = {f: f.stat().st_mtime_ns for f in workdir.glob("checkpoints/*/sft/[0-9]*/*")}
    assert len(kept) > 6
    done = run(workdir, TINY, *changed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert kept == {file: file.stat().st_mtime_ns for file in kept}
    before, after = products(whole), products(workdir)
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {f"export/{role}/adapter_model.safetensors" for role in roles}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.seed=5"], "config.seed: 0 there, 5 now"),
        (["--config.sample.temperature=-1"], r"config.sample.temperature: must not be negative"),
    ],
)
def test_bad_input_is_refused_with_its_name(whole, flags, message):
    done = run(whole, TINY, *flags)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_merged_weights_come_on_request_only(whole):
    assert not (whole / "export" / "merged").exists()
    done = run(whole, TINY, "--stage=merge")
    assert done.returncode == 0, done.stderr[-3000:]
    for role in ("generator", "verifier", "refiner"):
        assert (whole / "export" / "merged" / role / "model.safetensors").stat().st_size > 0


def test_a_run_without_anything_to_learn_says_what_to_do_and_that_works(tmp_path):
    """Random weights answer nothing rightly. What the refusal proposes, given as it stands, lets
    the same work directory go on."""
    workdir, silent = tmp_path / "run", small.save(tmp_path / "model")
    short = [f"--config.roles.{r}.max_new_tokens=8" for r in ("generator", "verifier", "refiner")]
    short += ["--config.eval.systems=('ma','ma_mv')", "--config.eval.equal_compute=False"]
    done = run(workdir, silent, *short)
    assert done.returncode != 0
    assert done.stderr.count(".parquet: empty") == 5
    assert not (workdir / "export").exists()
    proposed = next(line for line in done.stderr.splitlines() if ".train=" in line)
    done = run(workdir, silent, *short, *shlex.split(proposed))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (workdir / "export").exists()
    assert (workdir / "report" / "index.html").exists()
    (change,) = json.loads((workdir / "config.json").read_text())["changes"]
    assert change["config"]["roles.verifier.train"] == {"old": ["sft", "dpo"], "new": []}


def test_a_stage_without_the_one_before_it_says_so(tmp_path):
    done = run(tmp_path / "run", TINY, "--stage=datasets")
    assert done.returncode != 0
    assert "run --stage=collect first" in done.stderr


def test_a_missing_model_is_named(tmp_path):
    done = run(tmp_path / "run", tmp_path / "no-such-model")
    assert done.returncode != 0
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr
