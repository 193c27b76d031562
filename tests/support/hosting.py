"""Several processes as the hosts of one job."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from whole import ROOT, TINY, command

SMALL = (
    "--config.sample.questions_per_shard=1",
    "--config.data.eval_questions=9",
    "--config.eval.systems=('malt','malt_mv')",
    "--config.roles.generator.train=()",
    "--config.roles.verifier.train=()",
    "--config.sft.checkpoint_every=2",
)


def begin(
    workdir: Path,
    count: int,
    *flags: str,
    devices: int = 1,
    program: str = "",
    last: Sequence[str] = (),
) -> list[subprocess.Popen]:
    """One process a host. The last one has the flags `last` as well, and runs `program`, if there
    is one, in main's place."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    xla = f"--xla_force_host_platform_device_count={devices}"
    begun = []
    for i in range(count):
        cluster = (f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={i}")
        line = command(workdir, TINY, *SMALL, *(cluster if count > 1 else ()), *flags)
        if i == count - 1:
            line += last
            line[1:3] = ["-c", program] if program else line[1:3]
        with (workdir.parent / f"{workdir.name}.{i}.log").open("a") as log:
            begun.append(
                subprocess.Popen(
                    line, cwd=ROOT, env=os.environ | {"XLA_FLAGS": xla}, stdout=log, stderr=log
                )
            )
    return begun


def ended(processes: Sequence[subprocess.Popen], seconds: float) -> list[int]:
    """Their exit statuses. Raises TimeoutExpired, and kills them, if they take longer."""
    until = time.monotonic() + seconds
    try:
        return [process.wait(max(until - time.monotonic(), 0)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def log(workdir: Path, host: int) -> str:
    return (workdir.parent / f"{workdir.name}.{host}.log").read_text()


def run(workdir: Path, count: int, *flags: str, devices: int = 1) -> Path:
    assert ended(begin(workdir, count, *flags, devices=devices), 900) == [0] * count, log(
        workdir, 0
    )
    return workdir


def files(workdir: Path, *patterns: str) -> dict[str, bytes]:
    return {
        path.relative_to(workdir).as_posix(): path.read_bytes()
        for pattern in patterns
        for path in sorted(workdir.glob(pattern))
    }


def losses(workdir: Path, phase: str) -> list[float]:
    lines = workdir / "checkpoints" / "refiner" / phase / "metrics.jsonl"
    return [json.loads(line)["loss"] for line in lines.read_text().splitlines()]


def results(workdir: Path) -> dict:
    content = json.loads((workdir / "eval" / "results.json").read_text())
    del content["seconds"]
    return content


def assert_same(workdir: Path, other: Path, *patterns: str) -> None:
    """The files of `patterns` byte for byte, losses to 1e-5, and every result of the evaluation."""
    kept = files(other, *patterns)
    assert kept
    assert files(workdir, *patterns) == kept
    for phase in ("sft", "dpo"):
        np.testing.assert_allclose(losses(workdir, phase), losses(other, phase), atol=1e-5)
    assert results(workdir) == results(other)
