"""Which questions a round asks: fresh ones, the same again, or those that the team finds hard."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.config.settings import Settings
from malt_jax.rollout import records
from malt_jax.types import Question
from malt_jax.workdir import question_record, rounds, shards


def most(settings: RoundsSettings, each: int) -> int:
    """How many training questions a round may need, in the data's order: `each` a round, of which
    rounds that repeat them ask the same; 0: all there are."""
    again = settings.questions == "repeated"
    return each if again else each * max(settings.number, settings.count)


def of_round(directory: Path, settings: Settings, questions: Sequence[Question]) -> list[Question]:
    """The questions of the round whose work directory this is, of `questions`, all that rounds up
    to it may ask, in the data's order. Rounds before it have their trees beside it.

    Raises ValueError if fresh questions run out, or no question is left to ask.
    """
    number, each = settings.rounds.number, settings.data.train_questions
    if settings.rounds.questions == "repeated" or number == 1:
        return list(questions[: each or None])
    if settings.rounds.questions == "fresh":
        check_fresh(questions, each, number)
        return list(questions[each * (number - 1) : each * number])
    values: dict[str, float] = {}
    asked: set[str] = set()
    for earlier in range(1, number):
        of_earlier = rounds.beside(directory, earlier)
        recorded = question_record.path(of_earlier, "train")
        asked |= {row["question_id"] for row in shards.read_one(recorded, ["question_id"])}
        values |= root_values(of_earlier / "trees")
    chosen = hard(questions, asked, values, each)
    if not chosen:
        raise ValueError(
            f"config.rounds.questions: no hard question is left for round {number}: the team was "
            "always right or always wrong on all that were asked, and there are no fresh ones; "
            f"give config.rounds.count={number - 1}, or 'repeated'"
        )
    again = sum(question.id in asked for question in chosen)
    logging.info("round %d: %d hard questions again, %d fresh", number, again, len(chosen) - again)
    return chosen


def check_fresh(questions: Sequence[Question], each: int, rounds: int) -> None:
    """Raises ValueError if there are not as many as `rounds` of `each` fresh questions need."""
    if len(questions) < each * rounds:
        raise ValueError(
            f"config.rounds.questions: {rounds} rounds of config.data.train_questions={each} fresh "
            f"questions need {each * rounds}, and there are {len(questions)}; give "
            f"config.data.train_questions={max(1, len(questions) // rounds)}, fewer rounds, or "
            "config.rounds.questions='repeated'"
        )


def hard(
    questions: Sequence[Question], asked: set[str], values: Mapping[str, float], count: int
) -> list[Question]:
    """`count` questions, or where that is 0 all hard ones.

    First come those that were `asked` and whose `values` (of the root, by question id, in [0, 1])
    are neither 0 nor 1, the nearest to 1/2 first: there a sample's reward varies most. Then come
    questions that were not asked. Both keep the order of `questions` otherwise.

    Worked example: of a, b, c, asked, with the values 1, 0.9, 0.4, and d and e, not asked, three
    are c, b and d.
    """
    again = [question for question in questions if 0 < values.get(question.id, 0.0) < 1]
    again.sort(key=lambda question: abs(values[question.id] - 0.5))
    fresh = [question for question in questions if question.id not in asked] if count else []
    return [*again, *fresh][: count or None]


def root_values(trees: Path) -> dict[str, float]:
    """`credit.root_values` of all shards of `trees`."""
    values: dict[str, float] = {}
    for path in shards.paths(trees):
        values |= credit.root_values(records.read(path, credit.columns(CreditSettings())))
    return values
