"""The settings of learning over rounds: `config.rounds.*`."""

from dataclasses import dataclass
from typing import Literal

from malt_jax.config.schema import Checks, Rule, at_least, positive, setting


@dataclass(frozen=True)
class RoundsSettings:
    """`config.rounds.*`: how often trees are drawn and learned from."""

    count: int = setting(
        1,
        "rounds of learning; from the second on, trees are drawn by the team as the round before "
        "trained it; 1: one set of trees, of the untrained base",
        positive(),
    )
    questions: Literal["fresh", "repeated", "hard"] = setting(
        "fresh",
        "of a round: fresh takes the next data.train_questions of the data, repeated the same ones "
        "each time, hard those asked before of which the team was neither always right nor always "
        "wrong, filled up with fresh ones",
    )
    thresholds: tuple[float, ...] = setting(
        (),
        "credit.threshold of each round, the last one also of the rounds after it; empty: "
        "credit.threshold throughout",
        Rule(
            lambda values: all(0 <= value < 1 for value in values),
            "must each be in [0, 1): labels are value > it",
        ),
    )
    start: Literal["base", "previous"] = setting(
        "base",
        "what a round's training starts from: base, the adapters that the first round started "
        "from; previous, those that the round before trained",
    )
    reference: Literal["start", "base"] = setting(
        "start",
        "the reference policy of phases that have one: start, the policy that the phase starts "
        "from; base, the model without an adapter",
    )
    replay: int = setting(
        0,
        "earlier rounds whose trees are learned from as well, with the labels of this round",
        at_least(0, "must be 0 or a number of rounds"),
    )
    replay_weight: float = setting(
        1.0,
        "of replay: what a row of the round before weighs in a mean beside one of this round; of "
        "k rounds before, that to the power of k",
        Rule(lambda weight: 0 < weight <= 1, "must be in (0, 1]; rounds.replay=0 leaves rows out"),
    )
    temperatures: tuple[float, ...] = setting(
        (),
        "candidates for the sample.temperature of a round's trees; each round takes the one at "
        "which the most development questions have a contrast, the first of equals; empty: "
        "sample.temperature",
        Rule(
            lambda values: all(value > 0 for value in values) and len(set(values)) == len(values),
            "must each be positive and stand there once: greedy samples have no contrast",
        ),
    )
    temperature_questions: int = setting(
        32,
        "of temperatures: how many of the development questions a tree is drawn of at each "
        "candidate; all of them if there are fewer",
        positive(),
    )
    verdict: int = setting(
        0,
        "rounds, from the first on, in which credit.by_verdict counts; after them the value of "
        "what followed does: a critic that first learns to tell, then to help; 0: in all",
        at_least(0, "must be 0 or a number of rounds"),
    )
    behaviour: str = setting(
        "",
        "a work directory whose exported team draws the trees; a run sets that of the round before "
        "for each of its rounds from the second on; empty: the base draws",
    )
    drawn_at: float = setting(
        0.0,
        "the temperature of the trees alone; a run sets that of rounds.temperatures for each of "
        "its rounds; 0: sample.temperature",
        at_least(0, "must not be negative (0 is sample.temperature)"),
    )
    number: int = setting(
        0,
        "which round of the run above it a work directory is of; a run sets it for the directories "
        "below rounds/",
        at_least(0, "must be 0 or the number of a round"),
    )

    def threshold(self, number: int, otherwise: float) -> float:
        """theta of round `number`, which counts from 1; `otherwise` where no schedule is given."""
        schedule = self.thresholds[:number]
        return schedule[-1] if schedule else otherwise

    def rules(self) -> Checks:
        """A schedule is no longer than the rounds, and a round has none of its own below it."""
        given = len(self.thresholds)
        return [
            (
                "replay_weight",
                self.replay_weight == 1 or self.replay > 0,
                "no earlier round is learned from; give 1, or raise config.rounds.replay",
            ),
            (
                "temperatures",
                not self.temperatures or self.count > 1 or self.number > 0,
                "there is one round; give config.sample.temperature, or raise config.rounds.count",
            ),
            (
                "drawn_at",
                not (self.drawn_at and self.temperatures) or self.number > 0,
                "config.rounds.temperatures is to find it; give one of the two",
            ),
            (
                "thresholds",
                self.count == 1 or given <= self.count,
                f"{given} values for {self.count} rounds; leave some out, or raise "
                "config.rounds.count",
            ),
            (
                "thresholds",
                self.count > 1 or not given,
                "there is one round; give config.credit.threshold, or raise config.rounds.count",
            ),
            (
                "verdict",
                not self.verdict or self.verdict < self.count,
                f"{self.verdict}, but there are {self.count} rounds, so that no other follows; "
                "give 0, or raise config.rounds.count",
            ),
            (
                "number",
                not self.number or self.count == 1,
                "a round of a run has no rounds itself; give config.rounds.count=1",
            ),
        ]
