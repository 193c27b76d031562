"""A grid or a random sweep over settings: a job a point, here or on another target, then a table.

    malt_jax_sweep --config=quickstart --name=rates \\
        --set sft.learning_rate=1e-3,3e-3 --set seed=0,1
    malt_jax_sweep ... --set dpo.learning_rate=log:1e-5:1e-3 --random=8
    malt_jax_sweep ... --on=slurm --dry_run     # or tpu_vm, gke: prints the commands
    malt_jax_sweep ... --table                  # of what has been evaluated so far

In a checkout `python launch/sweep.py` is the same, and only there are the other targets, which are
scripts of launch/. A value is VALUE,VALUE,... or, with --random=N, also log:LOW:HIGH or
linear:LOW:HIGH, from which each job draws; a comma in brackets or quotes is part of a value. Where
no swept setting shapes the trees, jobs here learn from those of the first. Whatever stands after --
goes to every job. Jobs lie in runs/NAME/POINT (in $BUCKET/NAME-POINT for tpu_vm and gke, where NAME
is also a part of the job's own name); a point that is evaluated is not run again. The table and
plots are in runs/NAME/sweep.html and sweep.md.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malt_jax import stages
from malt_jax.config import files, overrides
from malt_jax.experiments import compare
from malt_jax.report import sweep_page
from malt_jax.workdir import storage
from malt_jax.workdir.run_record import flat

_LONGEST_NAME = 63  # of a job of Kubernetes, a label of Google Cloud
_PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # a value that a name can hold as it is
TARGETS = ("here", "slurm", "tpu_vm", "gke")
_SCRIPTS = {
    "slurm": "launch/slurm.sbatch",
    "tpu_vm": "launch/tpu_vm.sh",
    "gke": "launch/gke/run.sh",
}
Point = dict[str, str]
"""A value a key, as the command line takes it."""


@dataclass(frozen=True)
class Sweep:
    """What was asked for."""

    name: str
    config: str
    target: str
    flags: tuple[str, ...]
    points: tuple[Point, ...]

    def label(self, point: Point) -> str:
        """A name for a point that directories and job names can bear. What such a name has no room
        or no letters for is told apart by a digest at its end."""
        last = [key.rpartition(".")[2] for key in point]
        keys = last if len(set(last)) == len(last) else list(point)
        text = "-".join(f"{key}-{value}" for key, value in zip(keys, point.values(), strict=True))
        label = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
        room = _LONGEST_NAME - len(self.name) - 1
        if len(label) <= room and all(_PLAIN.fullmatch(value) for value in point.values()):
            return label
        digest = hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:8]
        return f"{label[: room - len(digest) - 1].strip('-')}-{digest}"

    def trees(self, point: Point) -> str:
        """The work directory whose trees a point's job learns from, where all jobs run one after
        the other and no swept setting shapes the trees; empty for the first, which collects."""
        first = self.points[0]
        roles = files.load(self.config).to_dict()["roles"]
        outputs = [output for key in first for output in stages.bindings().of(key, roles)]
        shared = self.target == "here" and point != first and "trees" not in outputs
        return self.workdir(first) if shared else ""

    def workdir(self, point: Point) -> str:
        """Where a point's results lie."""
        if self.target in ("tpu_vm", "gke"):
            return f"{os.environ.get('BUCKET', 'gs://BUCKET')}/{self.name}-{self.label(point)}"
        return f"runs/{self.name}/{self.label(point)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweep of a command line (by default this process's), or prints it; the number of
    jobs that failed."""
    try:
        return _work(*parse(sys.argv[1:] if argv is None else argv))
    except ValueError as error:
        raise SystemExit(f"malt_jax_sweep: {error}") from error
    except KeyboardInterrupt:  # the job that was running has had it as well
        raise SystemExit(130) from None


def _work(options: argparse.Namespace, sweep: Sweep) -> int:
    failed = 0
    if not options.table:
        for point in sweep.points:
            line = command(sweep, point)
            print("+", shlex.join(line), flush=True)
            if not options.dry_run and not evaluated(sweep, point):
                failed += subprocess.run(line, check=False).returncode != 0
    if not options.dry_run:
        write(sweep)
    return failed


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, Sweep]:
    """The options, and the sweep that they describe."""
    text = __doc__ or ""
    parser = argparse.ArgumentParser(
        prog="malt_jax_sweep",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a recipe's name or file")
    parser.add_argument("--name", required=True, help="of the sweep: lower case letters, digits, -")
    parser.add_argument("--set", action="append", required=True, metavar="KEY=VALUES", dest="sets")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random points")
    parser.add_argument("--seed", type=int, default=0, help="of the random points")
    parser.add_argument("--on", choices=TARGETS, default="here", help="where jobs run")
    parser.add_argument("--dry_run", action="store_true", help="print every command, run none")
    parser.add_argument("--table", action="store_true", help="only tabulate what is there")
    parser.add_argument("flags", nargs="*", help="of every job, after --")
    options = parser.parse_args(argv)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", options.name):
        parser.error(f"--name={options.name}: lower case letters, digits and - only")
    if options.random < 0:
        parser.error(f"--random={options.random}: a number of points, or 0 for all combinations")
    if (script := _SCRIPTS.get(options.on, "")) and not Path(script).exists():
        parser.error(f"--on={options.on}: takes {script}, which a checkout has; run this in one")
    try:
        points = sample(options.sets, options.random, options.seed)
    except ValueError as error:
        parser.error(str(error))
    flags = tuple(options.flags)
    return options, Sweep(options.name, options.config, options.on, flags, tuple(points))


def sample(sets: Sequence[str], count: int, seed: int) -> list[Point]:
    """Every combination of the values, or `count` random ones. Raises ValueError for values that
    are no list where a grid needs one."""
    values: dict[str, str] = {}
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals or not text:
            raise ValueError(f"--set {assignment}: give KEY=VALUE,VALUE,...")
        if key in values:
            raise ValueError(f"--set {key}: given twice; give all its values in one list")
        values[key] = text
    if count:
        rng = random.Random(seed)
        return [{key: _draw(rng, text) for key, text in values.items()} for _ in range(count)]
    for key, text in values.items():
        if _range(text):
            raise ValueError(f"--set {key}={text}: a range is for --random=N; list values")
    lists = [_listed(text) for text in values.values()]
    points = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*lists)]
    return list({json.dumps(point): point for point in points}.values())


def _listed(text: str) -> list[str]:
    """The values between the commas that stand outside of brackets and quotes."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += character
    return values


def _range(text: str) -> re.Match[str] | None:
    return re.fullmatch(r"(log|linear):([^:]+):([^:]+)", text)


def _draw(rng: random.Random, text: str) -> str:
    bounds = _range(text)
    if not bounds:
        return rng.choice(_listed(text))
    low, high = float(bounds[2]), float(bounds[3])
    if bounds[1] == "linear":
        return f"{rng.uniform(low, high):.3g}"
    return f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}"


def command(sweep: Sweep, point: Point) -> list[str]:
    """The command that starts a point's job."""
    flags = [f"--config={sweep.config}", *sweep.flags]
    flags += [f"--config.{key}={value}" for key, value in point.items()]
    if trees := sweep.trees(point):
        flags.append(f"--config.trees={trees}")
    placed = [*flags, f"--config.workdir={sweep.workdir(point)}"]
    job = f"{sweep.name}-{sweep.label(point)}"
    match sweep.target:
        case "slurm":
            return ["sbatch", f"--job-name={job}", _SCRIPTS["slurm"], *placed]
        case "tpu_vm":  # its name, under $BUCKET, is the work directory
            return [_SCRIPTS["tpu_vm"], "up", job, *flags]
        case "gke":
            return [_SCRIPTS["gke"], "run", job, *flags]
    return [sys.executable, "-m", "malt_jax.main", *placed]


def evaluated(sweep: Sweep, point: Point) -> bool:
    """Whether a point's results are there."""
    return results(sweep, point) is not None


def results(sweep: Sweep, point: Point) -> Mapping[str, Any] | None:
    """A point's `eval/results.json`, if there is one. Raises ValueError if another point's lies
    where this one's should."""
    directory = storage.at(sweep.workdir(point))
    path, record = directory / "eval" / "results.json", directory / "config.json"
    if not path.exists():
        return None
    if record.exists():
        flags, _ = overrides.split([f"--config.{key}={value}" for key, value in point.items()])
        config = json.loads(record.read_text())["config"]
        wanted = flat(json.loads(json.dumps(overrides.applied(_as_recipe(config), flags, {}))))
        for key in point:
            if (value := flat(config).get(key)) != wanted[key]:
                raise ValueError(
                    f"{directory}: holds the results of config.{key}={value}, not {wanted[key]}; "
                    "give the sweep another --name"
                )
    return json.loads(path.read_text())


def _as_recipe(config: Any) -> Any:
    """A recorded config with tuples, which JSON has as lists."""
    if isinstance(config, dict):
        return {name: _as_recipe(value) for name, value in config.items()}
    return tuple(config) if isinstance(config, list) else config


def write(sweep: Sweep) -> None:
    """The table and the plots of the points that were evaluated."""
    evaluations = {i: results(sweep, point) for i, point in enumerate(sweep.points)}
    done = {i: evaluation for i, evaluation in evaluations.items() if evaluation is not None}
    places = {i: storage.at(sweep.workdir(sweep.points[i])) for i in done}
    gaps = {i: compare.difference(place, places[min(done)]) for i, place in places.items()}
    rows = [sweep_page.row(sweep.points[i], row, gaps[i]) for i, row in done.items()]
    directory = Path("runs", sweep.name)
    directory.mkdir(parents=True, exist_ok=True)
    table = sweep_page.table(rows)
    print(f"{len(rows)} of {len(sweep.points)} points evaluated\n{table}")
    (directory / "sweep.md").write_text(table + "\n", encoding="utf-8")
    (directory / "sweep.html").write_text(sweep_page.page(sweep.name, rows), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
