"""The benchmarks: loading their questions and grading answers to them, one file a benchmark."""

from malt_jax.tasks import arithmetic, csqa, equations, gsm8k, jsonl, math, mawps, svamp
from malt_jax.tasks.loading import LoadReport, load, whole
from malt_jax.tasks.task import Task

__all__ = ["LoadReport", "Task", "get", "load", "whole"]

_MODULES = (gsm8k, math, csqa, mawps, svamp, arithmetic, jsonl)
_TASKS = {task.name: task for task in (*(module.TASK for module in _MODULES), *equations.TASKS)}


def get(name: str) -> Task:
    """The task of that name; raises ValueError for an unknown one."""
    if name not in _TASKS:
        raise ValueError(f"data.task: no task {name!r}; choose one of {', '.join(_TASKS)}")
    return _TASKS[name]
