"""Completions in, grades out, in processes of their own within limits of time and memory."""

from malt_jax.grading import judges, programs
from malt_jax.grading.ballots import ballots
from malt_jax.grading.judge import Sample, verdict
from malt_jax.grading.pool import close, grade, submit
from malt_jax.tasks.task import Task

__all__ = ["Sample", "ballots", "close", "grade", "require", "submit", "verdict"]


def require(task: Task) -> None:
    """Raises ValueError where something that the task's grading needs is not to be had here, with
    what to do about it."""
    if task.program:
        programs.require(task.running.isolation)
    if task.judged:
        judges.require(task.judged.settings)
