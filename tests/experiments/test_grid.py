"""Sweeps: their points, the commands on every target, and the table of what came out."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from planted_outcomes import evaluated
from recipes import good

from malt_jax.experiments import grid
from malt_jax.report import sweep_page

GRID = ["--set", "sft.learning_rate=1e-3,3e-3", "--set", "seed=0,1"]
BASIC = ["--config=configs/quickstart.py", "--name=rates", *GRID]


def test_a_grid_is_every_combination():
    points = grid.sample(["a.b=1,2", "c=x,y,z"], 0, 0)
    assert len(points) == len({json.dumps(point) for point in points}) == 6
    assert points[0] == {"a.b": "1", "c": "x"}


def test_random_points_lie_in_their_ranges_and_come_again():
    sets = ["rate=log:1e-5:1e-3", "share=linear:0:0.5", "kind=a,b"]
    points = grid.sample(sets, 200, 3)
    assert points == grid.sample(sets, 200, 3) != grid.sample(sets, 200, 4)
    rates = [float(point["rate"]) for point in points]
    assert 1e-5 <= min(rates) <= max(rates) <= 1e-3
    # Half of a logarithmic range lies below its geometric mean.
    assert 60 < sum(rate < 1e-4 for rate in rates) < 140
    assert all(0 <= float(point["share"]) <= 0.5 for point in points)
    assert {point["kind"] for point in points} == {"a", "b"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "rate"], "KEY=VALUE"),
        (["--set", "rate=log:1:2"], "a range is for --random"),
        (["--set", "rate=1", "--name=My_Sweep"], "lower case"),
        (["--set", "rate=1", "--set", "rate=2"], "--set rate: given twice"),
        (["--set", "rate=1", "--random=-3"], "--random=-3: a number of points"),
    ],
)
def test_a_wrong_call_is_told(flags, message, capsys):
    with pytest.raises(SystemExit):
        grid.parse(["--config=c.py", "--name=rates", *flags])
    assert message in capsys.readouterr().err


def test_a_comma_inside_of_a_value_ends_none():
    sets = ["roles.verifier.train=('sft',),('sft','dpo'),()", 'kind="a,b",c', "seed=1,1"]
    points = grid.sample(sets, 0, 0)
    trains = {point["roles.verifier.train"] for point in points}
    assert trains == {"('sft',)", "('sft','dpo')", "()"}
    assert {point["kind"] for point in points} == {'"a,b"', "c"}
    assert len(points) == 6, "a point given twice is one"
    drawn = grid.sample(sets, 50, 0)
    assert {point["roles.verifier.train"] for point in drawn} == trains


def a_sweep(*points: dict[str, str], target: str = "here") -> grid.Sweep:
    return grid.Sweep("rates", "configs/quickstart.py", target, (), points)


@pytest.mark.parametrize(
    "points",
    [
        [{"x": "1"}, {"x": "-1"}, {"x": "+1"}],
        [{"x": "0.5"}, {"x": "0-5"}, {"x": "0,5"}],
        [{"x": "('sft',)"}, {"x": "sft"}, {"x": "['sft']"}, {"x": "SFT"}],
        [{"x": "a" * 80 + end} for end in ("", "b", "c")],
        [{"sft.rate": "1", "dpo.rate": "2"}, {"sft.rate": "2", "dpo.rate": "1"}],
    ],
)
def test_no_two_points_share_a_directory_and_no_name_is_too_long(points):
    labels = [a_sweep(*points).label(point) for point in points]
    assert len(set(labels)) == len(points), labels
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", label) for label in labels)
    assert all(len(f"rates-{label}") <= 63 for label in labels)


def test_results_of_another_point_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "runs" / "rates" / "seed-1"
    (workdir / "eval").mkdir(parents=True)
    (workdir / "eval" / "results.json").write_text("{}")
    config = good()
    (workdir / "config.json").write_text(json.dumps({"config": config | {"seed": 1}}))
    assert grid.results(a_sweep({"seed": "1"}), {"seed": "1"}) == {}
    (workdir / "config.json").write_text(json.dumps({"config": config | {"seed": 2}}))
    with pytest.raises(ValueError, match=r"seed-1: holds the results of config.seed=2, not 1"):
        grid.results(a_sweep({"seed": "1"}), {"seed": "1"})


def test_jobs_that_need_no_samples_of_their_own_learn_from_the_first_ones():
    rates = [{"sft.learning_rate": rate} for rate in ("1e-3", "2e-3")]
    seeds = [{"seed": seed} for seed in ("0", "1")]
    assert a_sweep(*rates).trees(rates[0]) == ""
    assert a_sweep(*rates).trees(rates[1]) == "runs/rates/learning-rate-1e-3"
    assert "--config.trees=runs/rates/learning-rate-1e-3" in grid.command(a_sweep(*rates), rates[1])
    assert a_sweep(*rates, target="slurm").trees(rates[1]) == ""
    assert a_sweep(*seeds).trees(seeds[1]) == ""


@pytest.mark.parametrize(
    ("target", "begins", "ends"),
    [
        ("here", [sys.executable, "-m", "malt_jax.main"], "workdir=runs/rates/learning-rate-1e-3"),
        ("slurm", ["sbatch", "--job-name=rates-learning-rate-1e-3-seed-0"], "workdir=runs/rates/"),
        ("tpu_vm", ["launch/tpu_vm.sh", "up", "rates-learning-rate-1e-3-seed-0"], "seed=0"),
        ("gke", ["launch/gke/run.sh", "run", "rates-learning-rate-1e-3-seed-0"], "seed=0"),
    ],
)
def test_a_dry_run_prints_a_command_a_point_for_every_target(target, begins, ends, capsys):
    assert grid.main([*BASIC, f"--on={target}", "--dry_run", "--", "--config.wandb=w"]) == 0
    printed = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 4
    assert printed[0][: len(begins)] == begins
    assert "--config.wandb=w" in printed[0]
    assert "--config.sft.learning_rate=1e-3" in printed[0]
    assert ends in printed[0][-1]
    assert len({tuple(line) for line in printed}) == 4


def score(accuracy: float) -> dict:
    return {
        "accuracy": accuracy,
        "ci95": [accuracy - 0.1, accuracy + 0.1],
        "n": 20,
        "tokens": {"prompt": 200, "completion": 400},
    }


def a_row(point: dict, accuracy: float, over_first: float | None = None) -> sweep_page.Row:
    """A job whose results hold the difference to the single agent's vote, and not to its sample."""
    systems = {
        "sa": score(0.1),
        "sa_mv": score(0.2),
        "malt": score(0.9),
        "malt_mv": score(accuracy),
    }
    gap = {"difference": 0.2 - accuracy, "ci95": [0.1 - accuracy, 0.3 - accuracy]}
    results = {"systems": systems, "paired": [{"a": "sa_mv", "b": "malt_mv", **gap}], "k": 3}
    first = over_first and {"difference": over_first, "ci95": [over_first - 0.1, over_first + 0.1]}
    return sweep_page.row(point, results, first or None)


ROWS = [
    a_row({"rate": "1e-5", "kind": "<b>"}, 0.25),
    a_row({"rate": "1e-3", "kind": "c"}, 0.75, 0.5),
    a_row({"rate": "1e-3", "kind": "d"}, 0.5, 0.25),
]


def test_the_table_has_the_best_first():
    lines = sweep_page.table(ROWS).splitlines()
    assert lines[0].startswith("| rate | kind | system | accuracy |")
    assert lines[2].replace("\u2212", "-") == (
        "| 1e-3 | c | malt_mv | 75.0% | 65.0 to 85.0 | sa_mv 20.0% | +55.0 (45.0 to 65.0) | "
        "+50.0 (40.0 to 60.0) | 20 | 30 |"
    )
    assert lines[-1].startswith("| 1e-5 |")


def test_jobs_are_compared_with_the_first_one_on_the_same_questions(tmp_path, monkeypatch, capsys):
    """The table had neither a baseline nor a difference."""
    monkeypatch.chdir(tmp_path)
    made = a_sweep({"rate": "1"}, {"rate": "2"})
    for point, right in zip(made.points, (40, 60), strict=True):
        place = tmp_path / made.workdir(point)
        evaluated(place, sa_mv=30, malt_mv=right)
        (place / "config.json").unlink()
        systems = {"sa_mv": score(30 / 120), "malt_mv": score(right / 120)}
        results = json.loads((place / "eval" / "results.json").read_text())
        (place / "eval" / "results.json").write_text(json.dumps(results | {"systems": systems}))
    grid.write(made)
    table = (tmp_path / "runs" / "rates" / "sweep.md").read_text().splitlines()
    assert "| sa_mv 25.0% |" in table[2]
    assert "| +16.7 (10.0 to 23.3) |" in table[2], "20 more of 120, on the same questions"
    assert table[3].count("–") == 2, "the first job has none to itself, and this file no pairs"


def test_the_page_plots_the_numbers_and_escapes_the_rest():
    page = sweep_page.page("rates", ROWS)
    assert page.count("<svg") == 1, "rate is a number, kind is none"
    assert page.count("<circle") == 2, "a dot a value"
    assert "log10 rate" in page
    assert "&lt;b&gt;" in page
    assert "<b>kind" not in page
    assert sweep_page.page("none", []).count("<svg") == 0


def test_a_sweep_runs_what_is_missing_and_tabulates(tmp_path, monkeypatch, capsys):
    """With a job that writes what an evaluation would."""
    monkeypatch.chdir(tmp_path)
    ran = []

    def fake(line, **_):
        ran.append(line)
        workdir = tmp_path / line[-1].removeprefix("--config.workdir=")
        (workdir / "eval").mkdir(parents=True)
        results = {"systems": {"ma": score(0.1), "malt": score(0.5)}}
        (workdir / "eval" / "results.json").write_text(json.dumps(results))
        return subprocess.CompletedProcess(line, len(ran) == 1)

    monkeypatch.setattr(grid.subprocess, "run", fake)
    assert grid.main(BASIC) == 1, "one of four ended badly"
    assert len(ran) == 4
    assert grid.main(BASIC) == 0
    assert len(ran) == 4
    assert "4 of 4 points evaluated" in capsys.readouterr().out
    assert (tmp_path / "runs" / "rates" / "sweep.md").read_text().count("malt |") == 4
    assert "<svg" in (tmp_path / "runs" / "rates" / "sweep.html").read_text()


def test_a_sweep_goes_from_any_directory_without_a_checkout(tmp_path, monkeypatch, capsys):
    """Recipes have names there; the scripts of other targets are not there, and that is told."""
    monkeypatch.chdir(tmp_path)
    named = ["--config=quickstart", "--name=rates", *GRID]
    assert grid.main([*named, "--dry_run"]) == 0
    assert capsys.readouterr().out.count("-m malt_jax.main --config=quickstart") == 4
    for target in ("slurm", "tpu_vm", "gke"):
        with pytest.raises(SystemExit):
            grid.main([*named, f"--on={target}", "--dry_run"])
        assert "which a checkout has" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="did you mean quickstart"):
        grid.main(["--config=quickstrat", "--name=rates", *GRID])


def test_the_script_of_a_checkout_is_the_same_command(tmp_path):
    root = Path(__file__).parents[2]
    line = [sys.executable, root / "launch" / "sweep.py", *BASIC, "--on=slurm", "--dry_run"]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("launch/slurm.sbatch --config=configs/quickstart.py") == 4
