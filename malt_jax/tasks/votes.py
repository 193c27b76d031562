"""Votes over answers: what a completion votes for where no reference is known, and who wins."""

from collections import Counter
from collections.abc import Sequence

from malt_jax.tasks.extract import marked
from malt_jax.tasks.task import Task


def answer(task: Task, text: str) -> str:
    """What a completion votes for, in the task's canonical form: its mark, else its last line;
    empty where the task reads neither."""
    if task.answer is not None:
        return task.answer(text)
    marks = [mark for mark, _ in marked(text)] or text.strip().splitlines()[-1:]
    return next(filter(None, (task.reference(mark, ()) for mark in marks)), "")


def majority(answers: Sequence[str]) -> int | None:
    """Index of the first sample that gives the winning answer of a vote, or None if nobody votes.

    An empty string (nothing could be parsed) is no vote. Of the answers with the most votes the
    one that appeared first wins: the paper states no rule, and this one needs no random number.
    """
    votes = Counter(answer for answer in answers if answer)
    return answers.index(max(votes, key=votes.__getitem__)) if votes else None
