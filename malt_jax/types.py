"""The nouns that every room of the house shares: a question and the verdict on one answer to it."""

import math
from dataclasses import dataclass
from typing import Literal, cast

Status = Literal["correct", "wrong", "unparseable", "truncated", "unknown"]


@dataclass(frozen=True)
class Question:
    """One problem with its ground truth.

    `id` is unique in its split and stable between runs: the random numbers of its tree follow
    from it. `choices` is empty, or holds (label, text) pairs of a multiple-choice question;
    `text` then already shows them as they are put to the model. `solution` is a worked one as a
    role would write it, its answer marked, or empty where the data set has none.
    """

    id: str
    text: str
    answer: str
    choices: tuple[tuple[str, str], ...] = ()
    solution: str = ""


@dataclass(frozen=True)
class Grade:
    """The verdict on one completion.

    `answer` is the extracted answer in a canonical form, so that equal answers are equal strings
    and a majority vote can count them; it is empty if there is none. `via` names the rule that
    read it ("final_answer", "boxed", "hashes", "fallback", or "grader" for a task's own grader), or
    is empty. `score` is the reward in [0, 1], NaN where there is no verdict; by default it follows
    from `status`: 1.0 for a correct answer, else 0.0 (MALT, section 4.1). "unknown" says that
    grading did not end within its limits: no vote, no reward, and in a tree a missing leaf.

    Raises:
        ValueError: for a score outside [0, 1].
    """

    status: Status
    answer: str = ""
    via: str = ""
    score: float = cast(float, None)

    def __post_init__(self) -> None:
        score = self.score
        if score is None:
            score = {"correct": 1.0, "unknown": math.nan}.get(self.status, 0.0)
        if score < 0 or score > 1:
            raise ValueError(f"score {score}: make it one in [0, 1], or NaN for no verdict")
        # One NaN for all: grades without a verdict are equal.
        object.__setattr__(self, "score", math.nan if math.isnan(score) else float(score))
