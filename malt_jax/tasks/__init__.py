"""The benchmarks: loading their questions and grading answers to them, one file a benchmark."""

from dataclasses import replace

from malt_jax.config.settings import Settings
from malt_jax.tasks import (
    arithmetic,
    coding,
    csqa,
    equations,
    gsm8k,
    jsonl,
    math,
    mawps,
    openended,
    own,
    svamp,
)
from malt_jax.tasks.loading import LoadReport, load, whole
from malt_jax.tasks.program import Running
from malt_jax.tasks.task import Judged, Task

__all__ = ["LoadReport", "Task", "chosen", "get", "load", "place", "whole"]

_MODULES = (gsm8k, math, csqa, mawps, svamp, arithmetic, jsonl, openended)
_PROGRAMS = (coding.HUMANEVAL, coding.MBPP, coding.CODEJSONL)
_ALL = (*(module.TASK for module in _MODULES), *equations.TASKS, *_PROGRAMS)
_TASKS = {task.name: task for task in _ALL}


def place(text: str) -> tuple[str, str]:
    """The task and the path of a "TASK:PATH", where TASK may be an own one."""
    name, _, path = text.partition(":")
    attribute, colon, own_path = path.partition(":")
    if name not in _TASKS and colon:
        return f"{name}:{attribute}", own_path
    return name, path


def chosen(settings: Settings) -> Task:
    """The task of `config.data.task`, graded as the settings say. Raises ValueError as `get`
    does."""
    task, data = get(settings.data.task), settings.data
    running = Running(data.sandbox, data.score)
    if task.judged:
        task = replace(task, judged=Judged(settings.judge, settings.workdir))
        if settings.judge.form == "preference":
            task = replace(task, reference=openended.compared)
    return replace(task, running=running, reward=settings.reward)


def get(name: str) -> Task:
    """The task of that name: one of the benchmarks here, or an own one, FILE.py:NAME or
    MODULE:NAME. Raises ValueError for one that is neither, and for a file that cannot be loaded."""
    if ":" in name:
        task = own.load(name)
        if not isinstance(task, Task):
            raise ValueError(f"data.task: {name} is a {type(task).__name__}; make it a tasks.Task")
        return task
    if name not in _TASKS:
        raise ValueError(
            f"data.task: no task {name!r}; choose one of {', '.join(_TASKS)}, or name your own: "
            "FILE.py:NAME"
        )
    return _TASKS[name]
