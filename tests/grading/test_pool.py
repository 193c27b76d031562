"""Grading beside the main thread: what is asked for once is graded once, and what the processes
know of the outside."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import planted_graders
import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample, isolation, pool
from malt_jax.tasks import Task
from malt_jax.types import Grade

GSM8K = tasks.get("gsm8k")
COUNTED = replace(GSM8K, rules=planted_graders.counts)
REFUSING = replace(GSM8K, rules=planted_graders.refuses)
SCORED = Task("scored", grade=planted_graders.scores)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    grading.close()


def test_submit_returns_before_the_verdict_is_there() -> None:
    slow = replace(GSM8K, rules=planted_graders.hangs)
    future = grading.submit(slow, [Sample("a", "18"), Sample("b", "18")])
    assert not future.done()  # a process takes longer to start
    assert [grade.status for grade in future.result()] == ["correct", "correct"]
    assert grading.submit(slow, []).result() == []
    assert grading.submit(slow, [Sample("a", "18")]).done()  # remembered


def test_equal_samples_are_graded_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    texts = ["a", "b", "a", "a", "b", "c"]
    grades = grading.grade(COUNTED, [Sample(text, str(asked)) for text in texts])
    assert [grade.answer for grade in grades] == texts
    assert len(asked.read_text()) == 3
    grading.grade(COUNTED, [Sample("a", str(asked)), Sample("d", str(asked))])
    assert len(asked.read_text()) == 4
    grading.close()
    grading.grade(COUNTED, [Sample("a", str(asked))])
    assert len(asked.read_text()) == 5


def test_equal_samples_under_way_are_graded_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    futures = [grading.submit(COUNTED, [Sample("a", str(asked))]) for _ in range(20)]
    assert {future.result()[0].answer for future in futures} == {"a"}
    assert len(asked.read_text()) == 1


@pytest.mark.parametrize(
    "other",
    [
        Sample("x", "{}", True),
        Sample("x", "{}", False, (("A", "bank"),)),
        Sample("y", "{}"),
        Sample("x", "{}", question="another"),  # which a completion may ask again
    ],
)
def test_what_changes_a_verdict_is_graded_anew(other: Sample, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    first = Sample("x", str(asked))
    grading.grade(COUNTED, [first])
    grading.grade(COUNTED, [other._replace(answer=str(asked))])
    grading.grade(COUNTED, [first], leniently=True)
    assert len(asked.read_text()) == 3
    grading.grade(COUNTED, [first])
    assert len(asked.read_text()) == 3


def test_the_oldest_verdicts_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REMEMBERED", 3)
    asked = tmp_path / "asked"
    for text in "abcadb":  # the second a is remembered, and so the latest: b goes for d
        grading.grade(COUNTED, [Sample(text, str(asked))])
    assert len(asked.read_text()) == 5


def test_a_verdict_that_an_accident_cost_is_not_remembered(tmp_path: Path) -> None:
    task = replace(GSM8K, rules=planted_graders.hangs)
    future = grading.submit(task, [Sample("hang", "18")])
    while not pool.processes():
        time.sleep(0.01)
    (worker,) = pool.processes()
    time.sleep(1)
    os.kill(worker.pid, signal.SIGKILL)
    # Killed before it was ready, it is replaced; killed while it graded, that verdict is lost.
    assert future.result() == [Grade("unknown")]
    again = grading.submit(task, [Sample("hang", "18")])
    assert not again.done()


def test_only_the_reference_is_an_error() -> None:
    grades = grading.grade(REFUSING, [Sample(text, "18") for text in ("a", "bad", "b")])
    assert [grade.status for grade in grades] == ["correct", "unknown", "correct"]
    with pytest.raises(ValueError, match="planted: a bad reference"):
        grading.grade(REFUSING, [Sample("a", "18"), Sample("b", "bad")])
    assert grading.grade(REFUSING, [Sample("c", "18")])[0].status == "correct"


def test_a_completion_that_math_cannot_read_ends_no_run() -> None:
    bad = [Sample(f"\\boxed{{\\cos({n}!)}}", "2") for n in (2004, 3000)]
    statuses = [grade.status for grade in grading.grade(tasks.get("math"), bad)]
    assert set(statuses) <= {"wrong", "unknown"}


def test_a_process_stopped_while_idle_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grading.grade(GSM8K, [Sample("18", "18")])[0].status == "correct"
    (worker,) = pool.processes()
    os.kill(worker.pid, signal.SIGSTOP)
    started = time.monotonic()
    assert grading.grade(GSM8K, [Sample("so 18", "18")])[0].status == "correct"
    assert time.monotonic() - started < isolation.WALL_SECONDS
    assert pool.processes() == [worker]


def test_a_process_stopped_in_mid_grading_costs_its_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "WALL_SECONDS", 3.0)
    task = replace(GSM8K, rules=planted_graders.hangs)
    grading.grade(task, [Sample("a", "18")])
    (worker,) = pool.processes()
    stopper = threading.Timer(0.5, os.kill, (worker.pid, signal.SIGSTOP))
    stopper.start()
    grades = grading.grade(task, [Sample(text, "18") for text in ("b", "hang", "c")])
    assert [grade.status for grade in grades] == ["correct", "unknown", "correct"]


def test_the_processes_know_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MY_PASSWORD", "SSH_AUTH_SOCK")
    for name in secrets:
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    grading.grade(GSM8K, [Sample("18", "18")])
    (worker,) = pool.processes()
    environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
    names = {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    assert b"planted-secret" not in environment
    assert {"PATH", "LC_ALL", "PYTHONHASHSEED", "PYTHONPATH"} <= names
    assert not names & set(secrets)


def scores(completions: list[str]) -> list[float]:
    return [g.score for g in grading.grade(SCORED, [Sample(c, "x") for c in completions])]


def test_an_own_grader_costs_only_the_verdict_it_fails_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No number, no finite one, none in [0, 1], a score too few, a process that ends or spins."""
    monkeypatch.setattr(isolation, "CPU_SECONDS", 0.5)
    bad = ["word", "nan", "1.5", "-1", "short", "exit", "spin"]
    mixed = [text for i, text in enumerate(bad) for text in (f"0.{i}", text)]
    graded = scores(mixed)
    assert graded[::2] == [float(f"0.{i}") for i in range(len(bad))]
    assert all(math.isnan(score) for score in graded[1::2])


def test_an_own_grader_sees_the_question() -> None:
    task = Task("asks", grade=planted_graders.asks)
    sample = Sample("Where? A bank", "A", False, (("A", "bank"),), "Where?")
    assert [g.score for g in grading.grade(task, [sample, sample._replace(question="Who?")])] == [
        1.0,
        0.0,
    ]


@pytest.mark.parametrize("score", [-0.1, 1.1, math.inf])
def test_a_score_is_a_share(score: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        Grade("wrong", score=score)


def test_a_score_follows_from_the_status() -> None:
    assert Grade("correct").score == 1
    assert Grade("wrong").score == Grade("unparseable").score == Grade("truncated").score == 0
    assert math.isnan(Grade("unknown").score)
    assert Grade("unknown") == Grade("unknown", score=float(json.loads("NaN")))
