"""The nouns that every room of the house shares: a question and the verdict on one answer to it."""

from dataclasses import dataclass
from typing import Literal

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
    and a majority vote can count them; it is empty if nothing was found. `via` names the rule
    that found it ("final_answer", "boxed", "hashes", "fallback"), or is empty. "unknown" says that
    grading did not end within its limits: no vote, no reward, and in a tree a missing leaf.
    """

    status: Status
    answer: str = ""
    via: str = ""

    @property
    def reward(self) -> float:
        """1.0 for a correct answer, else 0.0 (MALT, section 4.1)."""
        return float(self.status == "correct")
