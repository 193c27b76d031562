"""Tasks that stand outside the package: how they are found, and what is said where they are not."""

from pathlib import Path

import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample
from malt_jax.tasks import own
from malt_jax.tasks.task import Task

SOURCE = """
from dataclasses import dataclass
from malt_jax.tasks import Task

@dataclass
class Weights:
    long: float = 0.5

def grade(completions, questions):
    return [1.0 if c == q.answer else Weights().long if len(c) > 3 else 0.0
            for c, q in zip(completions, questions)]

TASK = Task("mine", grade=grade)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(SOURCE)
    return path


def test_a_file_is_loaded_once_however_it_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks.get(f"{file}:TASK")
    monkeypatch.chdir(file.parent)
    assert tasks.get("my_task.py:TASK") is task
    assert tasks.get("../" + file.parent.name + "/my_task.py:TASK") is task
    other = file.with_name("other.py")
    other.write_text(SOURCE)
    assert tasks.get("other.py:TASK") is not task


def test_the_grading_process_finds_what_the_file_defines(file: Path) -> None:
    task = tasks.get(f"{file}:TASK")
    samples = [Sample(text, "yes", question="?") for text in ("yes", "no", "maybe", " ")]
    grades = grading.grade(task, samples)
    grading.close()
    assert [grade.score for grade in grades] == [1.0, 0.0, 0.5, 0.0]
    assert [grade.status for grade in grades] == ["correct", "wrong", "wrong", "unparseable"]
    assert [grade.answer for grade in grades] == ["yes", "no", "maybe", ""]


def test_rows_of_a_file_need_no_reader(file: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Is it?", "answer": " yes "}\n{"question": "Is it not?"}\n')
    questions, report = tasks.load(tasks.get(f"{file}:TASK"), str(rows), split="train")
    assert [(q.id, q.text, q.answer) for q in questions] == [("mine-train-0", "Is it?", "yes")]
    assert report.malformed == 1


def test_a_task_of_a_module() -> None:
    assert tasks.get("malt_jax.tasks.gsm8k:TASK") is tasks.get("gsm8k")


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("svamp:data/svamp.json", "svamp", "data/svamp.json"),
        ("svamp:gs://bucket/svamp.json", "svamp", "gs://bucket/svamp.json"),
        ("my_task.py:TASK:data/rows.jsonl", "my_task.py:TASK", "data/rows.jsonl"),
        ("package.module:TASK:gs://rows.jsonl", "package.module:TASK", "gs://rows.jsonl"),
        ("gsm9k:data.jsonl", "gsm9k", "data.jsonl"),
    ],
)
def test_a_test_set_names_its_task_and_its_file(text: str, name: str, path: str) -> None:
    assert tasks.place(text) == (name, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:TASK", r"^nowhere\.py: no such file in "),
        ("{file}:TASKS", r"my_task\.py: has no 'TASKS'; it defines .*Weights.*TASK"),
        ("{file}:grade", r"my_task\.py:grade is a function; make it a tasks\.Task"),
        ("no.such_module:TASK", r"^no\.such_module: cannot be loaded \(ModuleNotFoundError"),
        ("malt_jax.tasks.gsm8k:NO", r"^malt_jax\.tasks\.gsm8k: has no 'NO'"),
        ("{broken}:TASK", r"broken\.py: cannot be loaded \(ZeroDivisionError"),
        ("{syntax}:TASK", r"syntax\.py: cannot be loaded \(SyntaxError"),
    ],
)
def test_what_cannot_be_found_is_named(
    name: str, message: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broken, syntax = tmp_path / "broken.py", tmp_path / "syntax.py"
    broken.write_text("1 / 0")
    syntax.write_text("TASK = ")
    for _ in range(2):  # a file that failed is not taken for loaded
        with pytest.raises(ValueError, match=message) as raised:
            tasks.get(name.format(file=file, broken=broken, syntax=syntax))
        assert "\n" not in str(raised.value)


def test_a_task_has_rules_or_a_grader() -> None:
    rules = tasks.get("gsm8k").rules
    with pytest.raises(ValueError, match="'x': give one of rules, grade, program and judged"):
        Task("x")
    with pytest.raises(ValueError, match="'x': give one of rules, grade, program and judged"):
        Task("x", rules=rules, grade=lambda completions, questions: [0.0])
    with pytest.raises(ValueError, match="leave out answer"):
        Task("x", rules=rules, answer=str.strip)


def test_only_functions_that_another_process_finds_are_taken() -> None:
    assert own.load(own.spec(own.load)) is own.load
    for function in (lambda text: text, str.strip):
        with pytest.raises(ValueError, match="make it a function of a module's own"):
            own.spec(function)
