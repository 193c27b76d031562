"""How collection scales: with devices and hosts, and with the number of questions.

    python tests/benchmarks/scaling.py [--what=hosts|questions] [--runs=3] [--json]

hosts: trees of the quickstart's questions on 1, 2, 4 and 8 simulated devices of one process and by
1, 2 and 4 processes of one device, in turn. n of them get min(n, cores) cores, and the ideal is so
many times what one of them makes on one core of the same round. On a machine that others use as
well, tokens per second of CPU time say more: what more devices or hosts cost in work, against one.
Compilation is not counted: every run collects a first set of questions before it is timed.

questions: the stages from questions to the report with a model that answers at once, each number of
questions in a process of its own. What is left is the cost of everything but the model, in CPU
time, which should be the same a question, and peak memory, which should not grow. (Training costs
what its rows cost, and is left out.)
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

Row = dict[str, Any]
LAYOUTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1))  # processes, devices of each
SIZES = (100, 1_000, 10_000, 100_000)
STAGES = ("collect", "datasets", "evaluate", "audit", "report")
CORES = len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", choices=("hosts", "questions"), action="append")
    parser.add_argument("--runs", type=int, default=3, help="rounds over all layouts [%(default)s]")
    parser.add_argument("--questions", type=int, default=32, help="that are timed [%(default)s]")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="questions [%(default)s]")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work = json.loads(asked.worker)
        return collecting(**work) if "port" in work else answering(**work)
    figures: Row = {"cores": CORES}
    parts = asked.what or ["hosts", "questions"]
    if "hosts" in parts:
        figures["hosts"] = layouts(asked.runs, asked.questions)
    if "questions" in parts:
        figures["questions"] = [measured(n) for n in SIZES if n <= asked.most]
    print(json.dumps(figures) if asked.json else text(figures))


def layouts(runs: int, questions: int) -> list[Row]:
    """Medians over the rounds of tokens/s and of the efficiencies within a round."""
    rounds = []
    for i in range(runs):
        rates = {layout: rate(*layout, questions) for layout in LAYOUTS}
        note(f"round {i + 1} of {runs}: {rates}")
        rounds.append(rates)
    rows = []
    for processes, devices in LAYOUTS:
        cores = min(processes * devices, CORES)
        measured_rates = [rates[processes, devices][0] for rates in rounds]
        ideal = [rates[1, 1][0] * cores for rates in rounds]
        efficiency = [got / most for got, most in zip(measured_rates, ideal, strict=True)]
        work = [rates[processes, devices][1] / rates[1, 1][1] for rates in rounds]
        rows.append(
            {
                "processes": processes,
                "devices": devices,
                "cores": cores,
                "tokens_per_second": median(measured_rates),
                "efficiency": median(efficiency),
                "spread": [min(efficiency), max(efficiency)],
                "work_efficiency": median(work),
                "work_spread": [min(work), max(work)],
            }
        )
    return rows


def rate(processes: int, devices: int, questions: int) -> tuple[float, float]:
    """Tokens drawn by one layout, all of its processes together, a second, and a second of CPU
    time."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as workdir:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        cores = sorted(os.sched_getaffinity(0))[: min(processes * devices, CORES)]
        work = {"workdir": workdir, "questions": questions, "processes": processes, "port": port}
        work |= {"cores": cores}
        begun = [start(work | {"process": i}, devices) for i in range(processes)]
        printed = [ended(process) for process in begun]
    tokens, cpu = printed[0]["tokens"], sum(drawn["cpu"] for drawn in printed)
    return tokens / max(drawn["seconds"] for drawn in printed), tokens / cpu


def start(work: Row, devices: int = 1) -> subprocess.Popen[str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, __file__, f"--worker={json.dumps(work)}"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended(process: subprocess.Popen[str]) -> Any:
    out, errors = process.communicate()
    if process.returncode:
        sys.exit(f"a worker failed:\n{errors[-3000:]}")
    return json.loads(out.splitlines()[-1])


def collecting(
    workdir: str, questions: int, processes: int, port: int, cores: list[int], process: int
) -> None:
    """One process of a layout: a first collection, and one that is timed."""
    os.sched_setaffinity(0, cores)  # before JAX makes its threads
    from configs.quickstart import get_config
    from malt_jax.recipe import parse
    from malt_jax.runtime import hosts
    from malt_jax.stages import collect, job
    from malt_jax.workdir import shards

    if processes > 1:
        hosts.start(f"127.0.0.1:{port}", processes, process)
    config = get_config()
    config.workdir, config.sample.rows, config.sample.kv_gib = workdir, 48, 0.25
    config.data.train_questions, config.sample.questions_per_shard = 2 * questions, 2
    parsed = parse(config.to_dict())
    prepared = job.Job(parsed, collects=True)
    first, second = prepared.training[:questions], prepared.training[questions:]
    collect.run(Path(workdir) / "first", parsed, prepared.team, first)
    hosts.meet()
    started, worked = time.perf_counter(), time.process_time()
    collect.run(Path(workdir), parsed, prepared.team, second)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    rows = shards.read(Path(workdir) / "trees", ["completion_tokens"])
    tokens = sum(row["completion_tokens"] for row in rows)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "tokens": tokens}), flush=True)


def measured(questions: int) -> Row:
    (figures,) = ended(start({"sizes": [questions]}))
    note(f"{questions:,} questions: {figures}")
    return figures


def answering(sizes: list[int], counted: bool = False) -> None:
    """The stages with a model that answers at once, of trees of six nodes and passes of three, for
    each number of questions: after each stage microseconds of this process's CPU time a question,
    the most MiB that it has had, and its open files and threads; what it read and wrote in bytes.
    If `counted`, the calls of functions in place of the time."""
    from configs.quickstart import get_config
    from malt_jax import report
    from malt_jax.evaluate import audit, evaluation
    from malt_jax.learn import datasets
    from malt_jax.recipe import parse
    from malt_jax.stages import collect, job
    from malt_jax.types import Question

    config = get_config()
    config.eval.systems, config.eval.votes = ("ma", "ma_mv"), 1
    config.eval.equal_compute, config.eval.resamples = False, 100
    config.roles.generator.branching = 2
    config.roles.verifier.branching = config.roles.refiner.branching = 1
    parsed = parse(config.to_dict())
    team = job.Job(parsed, collects=False).team
    team = replace(team, sampler=instant(team))

    def stages(workdir: Path, n: int) -> dict[str, Callable[[], Any]]:
        asked = [Question(f"q{i}", f"{i}-{i}", "0") for i in range(n)]
        return {
            "collect": lambda: collect.run(workdir, parsed, team, asked),
            "datasets": lambda: datasets.run(workdir, parsed),
            "evaluate": lambda: evaluation.run(workdir, parsed, team, {}, asked),
            "audit": lambda: audit.run(workdir, parsed),
            "report": lambda: report.write(workdir),
        }

    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for stage in stages(Path(directory) / "first", 50).values():
            stage()  # compilation, imports, and the start of the grading process
        for n in sizes:
            row: Row = {"questions": n, "start_mib": peak()}
            for name, stage in stages(Path(directory) / str(n), n).items():
                read, written = traffic()
                if counted:
                    row[f"{name}_calls"] = calls_of(stage)
                else:
                    started = time.process_time()
                    stage()
                    row[f"{name}_us"] = 1e6 * (time.process_time() - started) / n
                row[f"{name}_mib"] = peak()
                row[f"{name}_open"] = [len(os.listdir(f"/proc/self/{x}")) for x in ("fd", "task")]
                row[f"{name}_bytes"] = [
                    b - a for a, b in zip((read, written), traffic(), strict=True)
                ]
            rows.append(row)
    print(json.dumps(rows), flush=True)


def calls_of(work: Callable[[], Any]) -> int:
    """How many functions, of Python and of C, `work` calls."""
    calls = 0

    def count(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def traffic() -> tuple[int, int]:
    """Bytes that this process has read and written so far, from wherever."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["wchar"])


def instant(team: Any) -> Any:
    """A sampler that answers every request at once, rightly half the time."""
    from malt_jax.sampler import Completion

    texts = [team.tokenizer.encode(f"Final Answer: {n}") for n in range(2)]
    answers = [Completion(ids, *np.zeros((2, len(ids)), np.float32), True) for ids in texts]

    def run(take: Callable[[], Any], *_: Any, **__: Any) -> Iterator[tuple[Any, list[Any]]]:
        while (request := take()) is not None:
            yield request, [answers[int(key[1]) % 2] for key in request.keys]

    return SimpleNamespace(mesh=team.sampler.mesh, run=run)


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def text(figures: Row) -> str:
    """The figures as tables."""
    lines = []
    if rows := figures.get("hosts"):
        lines.append(
            "processes  devices  cores  tokens/s  of the ideal  (least to most)   "
            "a CPU second, against one"
        )
        for row in rows:
            low, high = row["spread"]
            least, most = row["work_spread"]
            lines.append(
                f"{row['processes']:9}  {row['devices']:7}  {row['cores']:5}  "
                f"{row['tokens_per_second']:8.0f}  {row['efficiency']:11.0%}   "
                f"{low:.0%} to {high:.0%}          {row['work_efficiency']:6.0%}   "
                f"{least:.0%} to {most:.0%}"
            )
    if rows := figures.get("questions"):
        lines.append("questions" + "".join(f"{name:>24}" for name in STAGES))
        lines.append(" " * 9 + f"{'us a question    MiB':>24}" * len(STAGES))
        for row in rows:
            pairs = [(row[f"{name}_us"], row[f"{name}_mib"]) for name in STAGES]
            columns = "".join(f"{us:17,.0f}{mib:7,.0f}" for us, mib in pairs)
            lines.append(f"{row['questions']:9,}{columns}")
    return "\n".join(lines)


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
