"""The settings of policy gradients: `config.rl.*`. What they do: `malt_jax/learn/phases/rl.py`."""

from dataclasses import dataclass
from typing import Literal

from malt_jax.config.phase import PhaseSettings
from malt_jax.config.schema import Checks, Rule, another_default, at_least, positive, setting

_WEIGHT = at_least(0, "must not be negative (0 is off)")


@dataclass(frozen=True)
class RlSettings(PhaseSettings):
    """`config.rl.*`."""

    learning_rate: float = another_default(PhaseSettings, "learning_rate", 5e-5)
    epochs: int = another_default(PhaseSettings, "epochs", 1)
    advantage: Literal["siblings", "leave_one_out", "mixed"] = setting(
        "siblings",
        "what a value is compared with: its siblings' mean, its own included; the mean of the "
        "others; a mix of the two",
    )
    mix: float = setting(
        0.5,
        "of mixed: the share of the mean of the others",
        Rule(lambda share: 0 <= share <= 1, "is a share, in [0, 1]"),
    )
    shaping: float = setting(0.5, "of mixed: the weight of the gap beside the value", _WEIGHT)
    normalise: bool = setting(
        False, "divides by the deviation of the siblings' values; blows small gaps up"
    )
    role_statistics: Literal["none", "scale", "standardise"] = setting(
        "none",
        "over all rows of a role: scale divides advantages by their deviation, standardise takes "
        "their mean off as well",
    )
    ratio: Literal["token", "sequence", "none"] = setting(
        "none",
        "what is clipped: the ratio of every token (PPO), of the whole completion, as a mean over "
        "its tokens (GSPO; clips of 1e-3 and less), or none (REINFORCE with truncated weights)",
    )
    clip_low: float = setting(
        0.2,
        "how far below 1 a ratio has a gradient",
        Rule(lambda low: 0 < low <= 1, "must be in (0, 1]"),
    )
    clip_high: float = setting(
        0.28,
        "how far above 1 a ratio has a gradient; more than below keeps exploration",
        positive(),
    )
    truncate: float = setting(
        5.0,
        "the largest importance weight: of ratio='none' the weight of a token's gradient; of the "
        "others a bound for negative advantages; 0: no weights, no bound",
        _WEIGHT,
    )
    kl_weight: float = setting(
        0.0, "weight of the KL to the base without an adapter, 1e-3 say; 0: off", _WEIGHT
    )
    kl: Literal["k1", "k2", "k3"] = setting(
        "k3", "its estimator: d, d^2 / 2 or exp(-d) - 1 + d, d = log pi - log base of a token"
    )
    entropy_weight: float = setting(
        0.0, "weight of the entropy of what is sampled, which is raised; 0: off", _WEIGHT
    )

    def rules(self) -> Checks:
        """A bound below the clip would be another clip."""
        bounded = self.ratio != "none" and self.truncate > 0
        return [
            (
                "truncate",
                not bounded or self.truncate > 1 + self.clip_high,
                "must be above 1 + config.rl.clip_high, or 0 for none",
            )
        ]
