"""A strategy that samples by grades: the package knows nothing of it."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from corrected import corrected
from telling import telling
from trees import QUESTIONS, store, team

from malt_jax import grading
from malt_jax.rollout import driver
from malt_jax.rollout.roles import Role
from malt_jax.runtime import process
from malt_jax.sampler import Work
from malt_jax.types import Grade

CORRECTOR = Role("corrector", "{question} is not {generator}", ("question", "generator"), 2, 9)
DEPTH = 2
RIGHT = {  # the paths of right answers; the others are wrong
    "q0": {(0,), (1,)},
    "q1": {(0,), (1, 0), (1, 1)},
    "q2": {(0,), (1, 1), (1, 0, 0)},
}


def grow(playing, questions=QUESTIONS, progress=lambda nodes: None):
    strategy = corrected(playing, CORRECTOR, DEPTH)
    return list(driver.grow(strategy, questions, progress, Work()))


def say(question: str, path: tuple[int, ...]) -> str:
    right = 2 * int(question[1]) + (path not in RIGHT.get(question, {(0,), (1,)}))
    return f"Final Answer: {right}"


def test_children_where_the_answer_is_wrong():
    trees = {rows[0]["question_id"]: rows for rows in grow(telling(team(), say))}
    assert [len(trees[f"q{i}"]) for i in range(5)] == [2, 4, 6, 2, 2]
    q2 = trees["q2"]
    assert [(r["node"], r["parent"], r["path"], r["status"]) for r in q2] == [
        (0, -1, [0], "correct"),
        (1, -1, [1], "wrong"),
        (2, 1, [1, 0], "wrong"),
        (3, 1, [1, 1], "correct"),
        (4, 2, [1, 0, 0], "correct"),
        (5, 2, [1, 0, 1], "wrong"),
    ]
    assert q2[4]["role"] == "corrector"
    assert "2+2 is not Final Answer" in q2[4]["prompt"]


def by_letters(task, samples) -> Future[list[Grade]]:
    """Right or wrong by the text, at once."""
    graded: Future[list[Grade]] = Future()
    odd = [sum(map(ord, sample.completion)) % 2 for sample in samples]
    graded.set_result([Grade("correct" if right else "wrong") for right in odd])
    return graded


def test_trees_do_not_depend_on_when_grades_come(monkeypatch):
    """The real sampler: early and late grades, other company and another order give the same
    samples."""
    monkeypatch.setattr(grading, "submit", by_letters)
    trees = {rows[0]["question_id"]: rows for rows in grow(team())}
    assert {len(rows) for rows in trees.values()} - {2}  # some have corrections

    def late(task, samples):
        time.sleep(sum(map(ord, samples[0].completion)) % 7 / 100)
        return by_letters(task, samples).result()

    with ThreadPoolExecutor(3) as beside:
        monkeypatch.setattr(grading, "submit", lambda *asked: beside.submit(late, *asked))
        again = grow(team(rows=24), QUESTIONS[::-1])
    assert {rows[0]["question_id"]: rows for rows in again} == trees


def test_a_killed_run_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "submit", by_letters)
    asked, strategy = [], corrected(team(), CORRECTOR, DEPTH)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "broken", strategy, asked, 3)
    store(tmp_path / "broken", strategy, asked)
    store(tmp_path / "whole", strategy, asked)
    assert [len(ids) for ids in asked] == [5, 2, 5]
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
             for name in ("broken", "whole")]  # fmt: skip
    assert files[0] == files[1]


def test_others_are_sampled_while_a_tree_waits_for_its_grades(monkeypatch):
    """The first tree's grades may take as long as they like, here until all others are drawn."""
    real, drawn, release = grading.submit, [0], threading.Event()

    def progress(nodes):
        drawn[0] += nodes
        if drawn[0] == 2 + 4 + 6 + 2 + 2:
            release.set()

    def late(task, samples):
        if samples[0].question == QUESTIONS[0].text:
            assert release.wait(60)
        return real(task, samples).result()

    with ThreadPoolExecutor(2) as beside:
        monkeypatch.setattr(grading, "submit", lambda *asked: beside.submit(late, *asked))
        assert len(grow(telling(team(), say), progress=progress)) == 5


def test_a_stop_while_grades_are_awaited_keeps_the_trees_that_are_whole(monkeypatch):
    """The grades of all but the last tree come when there is nothing left to sample."""
    awaited, names = [], []

    def submit(task, samples):
        awaited.append((Future(), samples))
        return awaited[-1][0]

    def heed():
        if awaited[0][0].done():
            raise process.Stopped("SIGINT")
        for graded, samples in awaited[:4]:
            graded.set_result(by_letters(None, samples).result())

    monkeypatch.setattr(grading, "submit", submit)
    monkeypatch.setattr(process, "heed", heed)
    strategy = corrected(telling(team(), say), CORRECTOR, 0)
    trees = driver.grow(strategy, QUESTIONS, lambda nodes: None, Work())
    with pytest.raises(process.Stopped):
        names.extend(rows[0]["question_id"] for rows in trees)
    assert names == ["q0", "q1", "q2", "q3"]


def test_a_bad_reference_ends_the_run_with_its_message(monkeypatch):
    refused: Future[list[Grade]] = Future()
    refused.set_exception(ValueError("reference answer: '?' is no number"))
    monkeypatch.setattr(grading, "submit", lambda task, samples: refused)
    with pytest.raises(ValueError, match="is no number"):
        grow(telling(team(), say))


def test_hosts_in_step_are_told(monkeypatch):
    """They would read their graders at different times, and then wait for each other for good."""
    playing = telling(team(), say)
    in_step = SimpleNamespace(mesh=SimpleNamespace(is_multi_process=True))
    with pytest.raises(ValueError, match=r"config\.mesh: .* hosts that work in step"):
        grow(replace(playing, sampler=in_step))
