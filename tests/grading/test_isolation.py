"""Grading in a process of its own: faults, kills; the verdicts of the others stay."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import planted_graders
import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample, isolation, pool
from malt_jax.tasks.extract import Rules
from malt_jax.tasks.task import Choices
from malt_jax.types import Grade

MATH, GSM8K = tasks.get("math"), tasks.get("gsm8k")


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    grading.close()


def planted(rules: Callable[[str, Choices], Rules]) -> tasks.Task:
    return replace(GSM8K, rules=rules)


def statuses(task: tasks.Task, completions: list[str], answer: str = "18") -> list[str]:
    return [v.status for v in grading.grade(task, [Sample(c, answer) for c in completions])]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "CPU_SECONDS", 0.5)
    monkeypatch.setattr(isolation, "WALL_SECONDS", 3.0)


def test_what_a_text_says_at_its_end_counts_however_long_it_is() -> None:
    assert statuses(GSM8K, ["17 " * 10**6 + "Final Answer: 18"]) == ["correct"]
    assert statuses(MATH, ["$y$ " * 10**6 + "\\boxed{2x}"], "2x") == ["correct"]


def test_a_grader_that_waits_or_spins_is_ended(short: None) -> None:
    graded = statuses(planted(planted_graders.hangs), ["a", "hang", "b", "spin", "c"])
    assert graded == ["correct", "unknown", "correct", "unknown", "correct"]


def test_a_grader_that_dies_is_the_same_as_one_that_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    order = ["a", "exit", "crash", "memory", "fault", "b"]
    graded = grading.grade(planted(planted_graders.dies), [Sample(c, "18") for c in order])
    assert [v.status for v in graded] == ["correct", *["unknown"] * 4, "correct"]
    assert all(v == Grade("unknown") and math.isnan(v.score) for v in graded[1:5])


def test_a_worker_killed_from_outside_in_mid_grading() -> None:
    task = planted(planted_graders.hangs)
    assert statuses(task, ["a"]) == ["correct"]
    (worker,) = pool.processes()
    killer = threading.Timer(0.5, os.kill, (worker.pid, signal.SIGKILL))
    killer.start()
    assert statuses(task, ["b", "hang", "c"]) == ["correct", "unknown", "correct"]
    (worker,) = pool.processes()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert statuses(task, ["d"]) == ["correct"]  # killed while idle: nobody's verdict suffers


def test_a_worker_killed_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """That ended the run: the grader was said not to start."""
    started, real = [], subprocess.Popen

    def killed(*arguments: Any, **named: Any) -> Any:
        started.append(real(*arguments, **named))
        if len(started) == 1:
            started[0].kill()
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", killed)
    assert statuses(GSM8K, ["18"]) == ["correct"]
    assert len(started) == 2


def test_output_of_a_library_is_no_verdict() -> None:
    graded = grading.grade(planted(planted_graders.prints), [Sample("x", "18")] * 3)
    assert graded == [Grade("wrong", "1", "fallback")] * 3


def test_a_reference_that_cannot_be_read_is_an_error_here_too() -> None:
    with pytest.raises(ValueError, match="'many' is not a number"):
        statuses(GSM8K, ["18"], "many")
    assert statuses(GSM8K, ["18"]) == ["correct"]


def test_a_process_that_does_not_start_is_an_error_and_no_verdict() -> None:
    task = replace(GSM8K, warm_up=planted_graders.warm_up_fails)
    with pytest.raises(OSError, match=r"does not start: 3 ended.*the same command goes on"):
        statuses(task, ["18"])
    with pytest.raises(ValueError, match="function of a module"):
        statuses(planted(lambda answer, choices: planted_graders.dies("", ())), ["18"])


CANARIES = [
    "__import__('os').system('touch {file}')",
    "eval(\"__import__('os').system('touch {file}')\")",
    "\\boxed{{__import__('os').system('touch {file}')}}",
    "Final Answer: ${{().__class__.__bases__[0].__subclasses__()}}$ or open('{file}', 'w')",
    "\\boxed{{\\text{{open('{file}','w')}}}}",
    "Final Answer: `touch {file}`",
    "Final Answer: $(touch {file})",
    "\\boxed{{\\input{{|touch {file}}}\\write18{{touch {file}}}}}",
    "Final Answer: 1+open('{file}','w').write('1')",
    '\\boxed{{1+exec(\'open("{file}","w")\')}}',
]


@pytest.mark.parametrize("name", ["math", "gsm8k", "csqa", "jsonl"])
def test_no_text_is_run_as_code(name: str, tmp_path: Path) -> None:
    file = tmp_path / "canary"
    answer = {"math": "1+x", "gsm8k": "18", "csqa": "A", "jsonl": "red"}[name]
    texts = [text.format(file=file) for text in CANARIES]
    grading.grade(tasks.get(name), [Sample(text, answer) for text in texts])
    if name in ("math", "jsonl"):  # here such a text may be the reference
        grading.grade(tasks.get(name), [Sample("\\boxed{x+1}", text) for text in texts])
    assert not file.exists()
    subprocess.run(["touch", str(file)], check=True)
    assert file.exists()  # the canary can sing


def test_threads_share_the_process() -> None:
    graded: dict[int, list[str]] = {}

    def work(i: int) -> None:
        graded[i] = statuses(GSM8K, [f"Final Answer: {i}"] * 100, "3")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert graded == {i: ["correct" if i == 3 else "wrong"] * 100 for i in range(5)}


def test_an_interrupted_exchange_leaves_no_replies_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two replies: the next grading must not read the old ones."""
    real, calls = isolation.Grade, []

    def interrupted(*fields: str) -> Grade:
        calls.append(fields)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*fields)

    with monkeypatch.context() as patch:
        patch.setattr(isolation, "Grade", interrupted)
        with pytest.raises(KeyboardInterrupt):
            statuses(GSM8K, [f"{i}. Final Answer: 18" for i in range(10)])
    assert statuses(GSM8K, [f"{i}. Final Answer: 17" for i in range(10)]) == ["wrong"] * 10


def test_the_process_ends_with_its_parent_and_is_no_zombie() -> None:
    """However the parent ends; and neither of the two has imported jax."""
    source = (
        "import os, sys\nfrom malt_jax import tasks\nfrom malt_jax import grading\n"
        "from malt_jax.grading import pool\n"
        "grading.grade(tasks.get('gsm8k'), [grading.Sample('18', '18')])\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
        "print(pool.processes()[0].pid, flush=True)\n"
    )
    for ending in ("", "os._exit(0)", "os.kill(os.getpid(), 9)"):
        done = subprocess.run(
            [sys.executable, "-c", source + ending],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.stdout, done.stderr
        wait_for_the_end_of(int(done.stdout))
    grading.grade(GSM8K, [Sample("18", "18")])
    (worker,) = pool.processes()
    grading.close()
    assert worker.returncode == -signal.SIGKILL


def wait_for_the_end_of(pid: int) -> None:
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # its parent was killed; whoever adopted it is to reap it
        time.sleep(0.1)
    pytest.fail(f"process {pid} outlives its parent")
