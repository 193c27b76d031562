"""The settings of answers that a model judges, and of rewards that weigh several things."""

from dataclasses import dataclass
from typing import Literal

from malt_jax.config.schema import Checks, Rule, at_least, positive, setting

_SHARE = Rule(lambda share: 0 < share <= 1, "must be in (0, 1]")
_WEIGHT = at_least(0, "must not be negative (0: it does not count)")


@dataclass(frozen=True)
class JudgeSettings:
    """`config.judge.*`: who judges the answers of task `judge`, and by what."""

    endpoint: str = setting(
        "",
        "the base URL of an OpenAI-compatible server, up to and with /v1; one that --stage=serve "
        "runs has the base model or a trained team judge",
    )
    model: str = setting("", "the model's name there")
    key: str = setting(
        "OPENAI_API_KEY",
        "the environment variable that holds the key; empty: the server asks for none",
    )
    rubric: str = setting("", "what makes an answer good, in words; the judge reads it as it is")
    form: Literal["score", "preference"] = setting(
        "score",
        "score: from 0 to 1; preference: the share of comparisons that the answer wins against "
        "the row's own, each in both orders",
    )
    right: float = setting(0.5, "an answer of at least this score counts as right", _SHARE)
    repeats: int = setting(1, "verdicts on an answer, whose mean counts", positive())
    concurrency: int = setting(8, "requests under way at a time", positive())
    attempts: int = setting(4, "tries of a request, with growing pauses between them", positive())
    seconds: float = setting(60.0, "the most that a try may take", positive())
    requests: int = setting(0, "the most questions that a process asks; 0: no limit", at_least(0))
    tokens: int = setting(
        0, "the most tokens, read and written, of a process; 0: no limit", at_least(0)
    )


@dataclass(frozen=True)
class RewardSettings:
    """`config.reward.*`: the score of an answer, as a mean of what is weighed."""

    correct: float = setting(1.0, "the weight of the task's own score", _WEIGHT)
    brief: float = setting(
        0.0, "the weight of brevity: 1 for nothing, 0 from config.reward.characters on", _WEIGHT
    )
    form: float = setting(
        0.0, "the weight of form: 1 for an answer that is marked as asked, else 0", _WEIGHT
    )
    characters: int = setting(2000, "the length from which an answer is not brief", positive())

    def rules(self) -> Checks:
        """Something is weighed."""
        weighed = self.correct + self.brief + self.form > 0
        return [("correct", weighed, "all weights are 0; give one that counts")]
