"""The nouns that every room of the house shares: a question, the verdict on one answer to it, and a
system that answers questions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

Status = Literal["correct", "wrong", "unparseable", "truncated", "unknown"]
Price = Literal["read_and_written", "written"]
PRICES: Mapping[Price, str] = {
    "read_and_written": "tokens read and written alike",
    "written": "tokens written only",
}
"""What is paid for, in words. Reading costs little where prompts are long and shared, and as much
as writing where a device has more arithmetic to do than weights to fetch."""


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
class System:
    """A way to answer a question that is evaluated beside others.

    `name` is its key in files and `title` its name in tables. `team` says whose adapters are used:
    none ("base") or the trained ones. A "team" asks `roles` one after another, and the last one
    answers; a "single" agent is one role that sees the question alone; a "debate" is several of
    that role, who read each other's answers. `votes` answers are drawn and the majority counts.
    `decoding` is "sampled" as `config.sample` says, or "greedy".
    """

    name: str
    title: str
    team: Literal["base", "trained"]
    kind: Literal["single", "team", "debate"]
    roles: tuple[str, ...]
    votes: int = 1
    decoding: Literal["sampled", "greedy"] = "sampled"

    @property
    def trained(self) -> bool:
        """Whether it uses trained adapters; every other system is a baseline."""
        return self.team == "trained"

    @property
    def voted(self) -> bool:
        """Whether its answer is a majority's."""
        return self.votes > 1

    @property
    def rank(self) -> tuple[bool, int, int, bool]:
        """Sort key of main systems: trained before untrained, whole teams before single agents,
        more votes before fewer, sampled before greedy."""
        kind = ("debate", "single", "team").index(self.kind)
        return self.trained, kind, self.votes, self.decoding == "sampled"


def parse_system(data: Mapping[str, Any]) -> System:
    """A system from its JSON object. Raises ValueError for a field missing, unknown or amiss."""
    try:
        system = System(**{**data, "roles": tuple(data["roles"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{dict(data)} describes no system ({error})") from error
    if system.team not in ("base", "trained") or system.kind not in ("single", "team", "debate"):
        raise ValueError(f"{dict(data)} describes no system")
    return system


def main_system(systems: Sequence[System]) -> System:
    """The system that tables compare the others with: the highest `rank`, the last among equals."""
    return max(reversed(systems), key=lambda system: system.rank)


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
