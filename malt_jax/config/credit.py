"""The settings of credit: what a sample is worth, and when it is positive."""

from dataclasses import dataclass
from typing import Literal

from malt_jax.config.schema import Checks, Rule, positive, setting


@dataclass(frozen=True)
class CreditSettings:
    """`config.credit.*`: from rewards at the leaves to what is learned from."""

    threshold: float = setting(
        0.5,
        "theta: a sample with a value strictly above it is positive",
        Rule(lambda value: 0 <= value < 1, "must be in [0, 1): labels are value > it"),
    )
    shuffle_rewards: bool = setting(
        False, "the negative control: rewards permuted among the samples of a shard"
    )
    max_positives_per_parent: int = setting(
        3, "SFT rows of a parent; ours, the paper gives no caps", positive()
    )
    max_pairs_per_parent: int = setting(
        2, "DPO pairs of a parent; ours, the paper gives no caps", positive()
    )
    truncated: bool = setting(
        False,
        "whether rl learns from completions that were cut at config.roles.ROLE.max_new_tokens; in "
        "their siblings' mean they count either way",
    )
    group: Literal["siblings", "question"] = setting(
        "siblings",
        "what rl compares a sample's value with: its siblings', or those of all samples of its "
        "role on the question, whatever they read, as where only the final reward is known",
    )
    label: Literal["threshold", "quantile", "parent"] = setting(
        "threshold",
        "what a positive's value is above: threshold, theta; quantile, the theta-quantile of its "
        "role's values; parent, its parent's value, and theta does not count",
    )
    verdict: tuple[str, ...] = setting(
        (),
        "words by which a critique says whether it accepts or rejects what it read, in this order: "
        "('correct', 'incorrect'), say; the last of them in a text counts; empty: none is read",
        Rule(lambda marks: len({*marks}) in (0, 2) and all(marks), "must be two words, or empty"),
    )
    by_verdict: tuple[str, ...] = setting(
        (),
        "roles whose samples are worth how right their verdict is, by the grade of the solution "
        "they read, in place of the value of what followed",
    )
    by_change: tuple[str, ...] = setting(
        (),
        "roles whose samples are worth what they changed: 1 a wrong answer mended, 1/2 none, 0 a "
        "right one spoilt",
    )

    def by_role(self) -> dict[str, tuple[str, ...]]:
        """The settings that give roles a reward of their own."""
        return {"by_verdict": self.by_verdict, "by_change": self.by_change}

    def rules(self) -> Checks:
        """A verdict has words, and a role one kind of reward."""
        both = sorted({*self.by_verdict} & {*self.by_change})
        return [
            (
                "by_verdict",
                bool(self.verdict) or not self.by_verdict,
                "config.credit.verdict is empty; give the two words of a verdict",
            ),
            ("by_change", not both, f"{both} stand in config.credit.by_verdict too"),
        ]
