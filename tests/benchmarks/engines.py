"""The engines of each benchmark by name, and a running one as the driver sees it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.weights import Weights

ROOT = Path(__file__).parents[2]
OURS = "malt_jax"


@dataclass(frozen=True)
class Engine:
    """What to start: a module of `peers`, in an environment of `environments` (None: this one),
    with a path of `Weights` by its name, and further arguments."""

    module: str
    environment: str | None
    weights: str
    also: tuple[str, ...] = ()


# The names of sampling's --engines, each with the rows it gives.
SAMPLING: dict[str, dict[str, Engine]] = {
    OURS: {OURS: Engine("ours", None, "directory")},
    "transformers": {
        "transformers_dynamic": Engine(
            "transformers_worker", "transformers", "directory", ("dynamic",)
        ),
        "transformers_static": Engine(
            "transformers_worker", "transformers", "directory", ("static",)
        ),
    },
    "llama_cpp_f32": {"llama_cpp_f32": Engine("llama_cpp_worker", "llama_cpp", "f32")},
    "llama_cpp_q8_0": {"llama_cpp_q8_0": Engine("llama_cpp_worker", "llama_cpp", "q8_0")},
    "tunix": {"tunix": Engine("tunix_worker", "tunix", "directory")},
}
# The names of training's --engines, a row each.
TRAINING = {
    OURS: Engine("ours_training", None, "directory"),
    "trl": Engine("trl_worker", "trl", "directory"),
    "tunix": Engine("tunix_training", "tunix", "directory"),
}


class Failure(RuntimeError):
    """An engine's own error, in its words."""


class Worker:
    """A process that answers requests. It is halted between them, so that it takes nothing from
    the others."""

    def __init__(self, module: str, interpreter: Path, arguments: list[str], log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self.started = time.perf_counter()
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [str(interpreter), "-m", f"benchmarks.peers.{module}", *arguments],
                cwd=ROOT / "tests",
                env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises Failure with what the worker says or said last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            said = self._log.read_text(encoding="utf-8", errors="replace")
            raise Failure(f"ended with status {status}: {said[-500:].strip()}")
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


@dataclass
class Running:
    """An engine's process and what every benchmark notes of it."""

    worker: Worker | None = None
    cold_start_s: float | None = None
    peak_rss_bytes: int | None = None
    error: str | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer; its peak of memory so far is noted."""
        assert self.worker is not None
        answer = self.worker.ask(request)
        self.peak_rss_bytes = answer["peak_rss_bytes"]
        return answer

    def warmed(self) -> None:
        """Ends the cold start, which began with the process."""
        assert self.worker is not None
        self.cold_start_s = time.perf_counter() - self.worker.started

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Notes an engine's failure as its result."""
        try:
            yield
        except (RuntimeError, OSError) as error:  # Failure is a RuntimeError
            self.error = str(error)
            say(f"{name}: failed: {self.error}")

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self.worker:
            self.worker.close()


def start(row: str, engine: Engine, folder: Path, weights: Weights, also: list[str]) -> Worker:
    """Starts an engine, its environment made first if need be; `also` are further arguments.

    Raises RuntimeError if the environment cannot be made.
    """
    home = engine.environment
    interpreter = environments.python(folder, home) if home else Path(sys.executable)
    arguments = [str(getattr(weights, engine.weights)), *engine.also, *also]
    return Worker(engine.module, interpreter, arguments, folder / "logs" / f"{row}.txt")


def measure_machine(folder: Path) -> dict[str, Any]:
    """This machine's `flops` and `bandwidth`, as `peers.hardware` finds them."""
    say("this machine's limits")
    worker = Worker("hardware", Path(sys.executable), [], folder / "logs" / "hardware.txt")
    try:
        return worker.ask({})
    finally:
        worker.close()


def say(text: str) -> None:
    """A line of progress, beside the result."""
    print(text, file=sys.stderr, flush=True)
