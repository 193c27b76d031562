"""What completions vote for where no reference is known."""

from collections.abc import Sequence

from malt_jax.grading import pool
from malt_jax.grading.judge import Sample
from malt_jax.tasks import votes
from malt_jax.tasks.task import Task


def ballots(task: Task, question: str, completions: Sequence[str]) -> list[str]:
    """A vote for each completion: equal ones are for the same answer, and an empty one is none.

    Programs are run, and vote by how they behave on the calls that the question shows and
    variations of them; a single one has nobody to agree with, and is not run.
    """
    if task.program is None or len(completions) == 1:
        return [votes.answer(task, text) for text in completions]
    samples = [Sample(text, "", question=question) for text in completions]
    return [grade.answer for grade in pool.grade(task, samples)]
