"""What a critique says of the solution that it read, and what a sample is worth by it, or by what
it changed. No gold text is needed: the grades of the same trees tell."""

import re
from collections.abc import Sequence

import numpy as np


def verdict(text: str, marks: Sequence[str]) -> bool | None:
    """Whether a critique accepts what it read.

    Args:
        text: the critique.
        marks: (accepts, rejects), words or phrases. The one that comes last as a whole counts;
            small and capital letters differ.

    Returns:
        True or False, or None where the text has neither.

    Worked example: with the marks ("correct", "incorrect"), "It looks correct. No: incorrect." is
    False, and "I am not sure." is None.
    """
    accepts, rejects = (re.escape(mark) for mark in marks)
    stated = re.findall(rf"(?<!\w)(?:({accepts})|({rejects}))(?!\w)", text)
    return bool(stated[-1][0]) if stated else None


def of_verdict(accepts: bool | None, score: float) -> float:
    """What a verdict is worth, in [0, 1]: how right it is about a solution of that `score`, in
    [0, 1]; NaN where the solution has none, 0 without a verdict.

    Worked example: accepting a solution of score 0 is worth 0, rejecting it 1; of one that has half
    of the credit, each is worth 1/2.

    Source: a critic that is first rewarded for telling right from wrong, arXiv 2510.24320.
    """
    if np.isnan(score):
        return score
    if accepts is None:
        return 0.0
    return score if accepts else 1.0 - score


def of_change(read: float, written: float) -> float:
    """What a refinement is worth, in [0, 1]: (1 + written - read) / 2, scores in [0, 1] of what it
    read and of what it wrote; NaN where one is not known.

    Worked example: to mend a wrong answer is worth 1, to leave an answer as right or as wrong as it
    was 1/2, and to spoil a right one 0.
    """
    return (1.0 + written - read) / 2


def read_scores(scores: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The score of the answer that each node read, its nearest ancestor's that has one: float32[N],
    NaN where none has.

    Args:
        scores: float32[N] in [0, 1], NaN where a node gave no answer or has no verdict.
        parents: int32[N], -1 at a root.

    Worked example: in the chain generator, verifier, refiner with the scores 0, NaN and 1 they have
    read NaN, 0 and 0.
    """
    read = np.full(len(scores), np.nan, np.float32)
    for i in range(len(scores)):
        above = parents[i]
        while above >= 0 and np.isnan(scores[above]):
            above = parents[above]
        if above >= 0:
            read[i] = scores[above]
    return read
