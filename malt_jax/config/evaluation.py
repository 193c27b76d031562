"""The settings of the evaluation: `config.eval.*`."""

from dataclasses import dataclass
from typing import Literal

from malt_jax.config import prompts
from malt_jax.config.schema import Rule, at_least, group, positive, setting


@dataclass(frozen=True)
class DebateSettings:
    """`config.eval.debate.*`: the baseline in which agents read one another's solutions."""

    agents: int = setting(3, "solutions side by side", at_least(2, "a debate needs two"))
    rounds: int = setting(3, "of writing, the first without others' solutions", positive())
    prompt: str = setting(
        prompts.DEBATER,
        "of all rounds but the first: shows {question}, {hint} and {others}",
        Rule(
            lambda text: "{question}" in text and "{others}" in text,
            "does not show the {question} and the {others}",
        ),
    )
    other: str = setting(
        "Solution of another agent:\n{other}",
        "how each of {others} is shown: shows {other}",
        Rule(lambda text: "{other}" in text, "does not show the {other}"),
    )


@dataclass(frozen=True)
class EvalSettings:
    """`config.eval.*`: what is compared on the held-out questions."""

    split: Literal["test", "development"] = setting(
        "test",
        "test: the questions of data.eval, to be read once settings are chosen; development: the "
        "data.development_questions cut from the training data, to choose settings on",
    )
    systems: tuple[str, ...] = setting(
        (
            *("sa", "sa_greedy", "sa_mv", "ma", "ma_greedy", "ma_mv"),
            *("malt", "malt_greedy", "malt_mv"),
        ),
        "what to compare: sa, ma and malt, each as one sampled pass, as _greedy and as the vote "
        "_mv; generator and generator_mv, the trained first role alone; debate",
    )
    single_agent: str = setting(
        "", "the role that is the single agent; empty: the first of config.chain"
    )
    votes: int = setting(
        3,
        "k: samples of the single agent, or passes of the team, that vote; the paper gives no rule "
        "for ties, ours is the answer that appeared first",
        positive(),
    )
    equal_compute: bool = setting(
        True,
        "as many more votes of the single agent, untrained and trained, as the costliest team's "
        "tokens pay for",
    )
    compute_of: str = setting(
        "",
        "another run's work directory: votes are for the tokens of its main system; empty: for the "
        "costliest of this run's",
    )
    critiques: bool = setting(
        False, "the last role again, with another question's critique or none"
    )
    debate: DebateSettings = group(DebateSettings, "the debate's own settings")
    resamples: int = setting(10_000, "of the bootstrap that gives intervals", positive())
