"""Hours of the whole job on a layout, from the programs' rooflines and the work there is."""

from dataclasses import dataclass

from malt_jax.plan import costs
from malt_jax.plan.layout import Looked
from malt_jax.plan.line import Target
from malt_jax.plan.workload import Work


@dataclass(frozen=True)
class Hours:
    """Hours of a stage on all chips, at least."""

    collect: float
    train: float
    score: float  # training's held-out evaluations and reference policies
    evaluate: float

    @property
    def job(self) -> float:
        """All of it."""
        return self.collect + self.train + self.score + self.evaluate


def hours(target: Target, looked: Looked, work: Work) -> Hours:
    """What the roofline allows for `work` on a layout that fits."""
    config, chips = target.config, len(target.devices)
    decode, prefill = looked.line("decode").step, looked.line("prefill").step

    def sampling(stage: str) -> float:
        steps = work.decoded[stage] / looked.rows
        passes = work.prefilled[stage] / looked.prefilled
        return (steps * decode + passes * prefill) / 3600

    token = 2 * costs.body(config) + 2 * costs.head(config)
    scoring = work.scored * token / (chips * target.chip.flops)
    stepping = sum(many * looked.line(f"train {name}").step for name, many in work.steps.items())
    return Hours(sampling("collect"), stepping / 3600, scoring / 3600, sampling("evaluate"))
