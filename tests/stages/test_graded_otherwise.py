"""Programs and judged answers from trees to a report, with a model that says what it is told; and
what is refused before anything is drawn."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import planted_programs as planted
import pytest
import small
from recipes import change, good
from telling import telling
from whole import TINY

from malt_jax import grading, report, stages, tasks
from malt_jax.config import settings
from malt_jax.evaluate import audit, evaluation, judge_audit, judged
from malt_jax.grading import endpoint, judges
from malt_jax.grading.endpoint import Reply, Unanswered
from malt_jax.learn import datasets
from malt_jax.recipe import parse
from malt_jax.stages import collect, job
from malt_jax.types import Question
from malt_jax.workdir import shards

Say = Callable[[str, int, int], str]
"""(question id, depth, child) -> a completion."""


@pytest.fixture(scope="module")
def prepared() -> job.Job:
    return job.Job(parse(change(good(), "model.path", str(TINY))), collects=False)


def told(
    prepared: job.Job, workdir: Path, say: Say, questions: Sequence[Question], **changes: Any
) -> settings.Settings:
    """All stages but training, in `workdir`; the settings."""
    config = change(change(good(), "workdir", str(workdir)), "eval.resamples", 50)
    for key, value in {"eval.systems": ("sa", "sa_mv"), **changes}.items():
        change(config, key.replace("__", "."), value)
    parsed = parse(config)
    team = replace(prepared.team, roles=job.Job(parsed, collects=False).chain)
    team = replace(team, task=tasks.chosen(parsed), tokenizer=small.tokenizer())
    team = telling(team, lambda name, path: say(name, len(path) - 1, path[-1]))
    collect.run(workdir, parsed, team, questions)
    datasets.run(workdir, parsed)
    evaluation.run(workdir, parsed, team, {}, questions)
    audit.run(workdir, parsed)
    report.write(workdir)
    grading.close()
    return parsed


def results(workdir: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((workdir / "eval" / "results.json").read_text())
    return read["systems"]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap")
def test_programs_go_through_all_stages(prepared: job.Job, tmp_path: Path) -> None:
    """Two of three programs are right, in two wordings; the third ends its process. Of three votes
    the two that behave alike win, whoever is first."""
    task = tasks.get("codejsonl")
    row = {"prompt": planted.HEADER, "entry_point": "double", "tests": ["assert double(7) == 14"]}
    question = replace(task.read_row(row), id="q0")
    hostile = (
        "<script>alert(1)</script>\n```python\nimport os\ndef double(x):\n    os._exit(0)\n```"
    )
    bodies = (hostile, f"```python\n{planted.RIGHT}\n```", "    return 2 * x")
    told(
        prepared,
        tmp_path,
        lambda name, depth, child: bodies[child],
        [question],
        data__task="codejsonl",
    )
    rows = [row for row in shards.read(tmp_path / "trees") if row["status"]]
    assert {row["path"][-1]: row["status"] for row in rows} == {
        **{0: "wrong", 1: "correct", 2: "correct"}
    }
    answers = {row["path"][-1]: row["answer"] for row in rows}
    assert answers[1] == answers[2] != answers[0]
    counts = json.loads((tmp_path / "datasets" / "yield.json").read_text())["refiner"]
    assert counts["positives"] == 18  # two of three of each of nine parents
    systems = results(tmp_path)
    assert systems["sa"]["accuracy"] == pytest.approx(2 / 3)
    assert systems["sa_mv"]["accuracy"] == 1
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<script>alert(1)" not in page


def test_judged_answers_go_through_all_stages(
    prepared: job.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge who prefers long answers, and has no word on those of one child."""

    def ask(settings: Any, key: str, messages: Any, *, tries: int, **more: Any) -> Reply:
        text = messages[1]["content"]
        if "mute" in text:
            raise Unanswered("status 500", finally_=True)
        return Reply(json.dumps({"score": min(1.0, text.count("word") / 10)}), 50)

    monkeypatch.setattr(endpoint, "ask", ask)
    parsed = told(
        prepared,
        tmp_path,
        lambda name, depth, child: ("word " * 9, "word", "mute")[child],
        [Question("q0", "Write about the sea.", "-")],
        data__task="judge",
        judge__endpoint="http://localhost:1/v1",
        judge__model="m",
        judge__rubric="Long is good.",
        judge__key="",
    )
    rows = [row for row in shards.read(tmp_path / "trees") if row["status"]]
    statuses = {row["path"][-1]: (row["status"], row["via"]) for row in rows}
    assert statuses == {0: ("correct", "judge"), 1: ("wrong", "judge"), 2: ("unknown", "judge")}
    assert [row["score"] for row in rows if row["path"] == [0, 0, 0]] == [pytest.approx(0.9)]
    kept = [json.loads(file.read_text()) for file in (tmp_path / "judge").iterdir()]
    assert {record["score"] for record in kept} == {0.9, 0.1}
    judged.run(tmp_path, parsed, 4)
    told_of = judge_audit.run(tmp_path, parsed)
    assert told_of["length"]["correlation"] == pytest.approx(1)
    assert json.loads((tmp_path / "audit" / "judge.json").read_text()) == told_of
    judges.close()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"data.task": "humaneval"}, r"config.data.sandbox: bwrap .*apt-get install bubblewrap"),
        ({"data.task": "judge"}, r"config.judge.endpoint: '' is no URL"),
        (
            {"data.task": "judge", "judge.endpoint": "http://h/v1", "judge.model": "m"}
            | {"judge.rubric": "r", "judge.key": "NO_SUCH_KEY"},
            r"config.judge.key: the environment has no NO_SUCH_KEY",
        ),
        ({"reward.correct": 0.0}, r"config.reward.correct: all weights are 0"),
    ],
)
def test_what_cannot_be_graded_is_refused_before_anything_is_drawn(
    changes: dict[str, Any], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = change(good(), "workdir", str(tmp_path / "run"))
    for key, value in changes.items():
        change(config, key, value)
    for names in (["collect"], ["evaluate"], ["rounds"], ["audit"]):
        with pytest.raises(ValueError, match=fault):
            stages.run(parse(config), config, names)
    assert not (tmp_path / "run").exists()
