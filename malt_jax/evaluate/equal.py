"""Votes of single roles for as many tokens as a team spends, as systems beside the others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from malt_jax.config.settings import Settings
from malt_jax.evaluate import scoring, systems, voting
from malt_jax.evaluate.scoring import Outcomes, Row
from malt_jax.types import PRICES, Price, System, main_system, parse_system
from malt_jax.workdir import storage
from malt_jax.workdir.storage import read_json

_NAMES: Mapping[Price, tuple[str, str]] = {
    "read_and_written": ("equal", "vote at equal compute"),
    "written": ("equal_written", "vote at equal tokens written"),
}


def paid_for(
    settings: Settings, chosen: Sequence[System], outcomes: Mapping[str, Sequence[Outcomes]]
) -> Sequence[Outcomes] | None:
    """What the main system answered, whose tokens the votes spend: that of the run
    `config.eval.compute_of`, or of this one; None where there is no team or trained system.

    Raises ValueError if the other run was not evaluated.
    """
    if other := settings.eval.compute_of:
        return _main_of(storage.at(other) / "eval")
    main = systems.compared_with_votes(chosen)
    return outcomes[main.name] if main else None


def _main_of(directory: Path) -> Sequence[Outcomes]:
    path = directory / "outcomes.parquet"
    if not path.exists():
        raise ValueError(
            f"config.eval.compute_of: {path} is not there; run --stage=evaluate of that run first"
        )
    described = read_json(directory / "results.json")["described"].values()
    main = main_system([*map(parse_system, described)])
    return list(scoring.read_outcomes(path)[main.name].values())


def votes(
    voters: Mapping[str, tuple[System, Sequence[Sequence[Row]]]], paid: Sequence[Outcomes]
) -> dict[str, tuple[System, list[Outcomes]]]:
    """By name the vote of every voter at every price: the system, and what it answered.

    `voters` are single roles with their samples of each question. Votes are over the first ones,
    and over all where they cost less than `paid`.
    """
    voted = {}
    for voter, finals in voters.values():
        for price in PRICES:
            k = voting.votes_for(finals, scoring.cost(paid, price), price)
            suffix, title = _NAMES[price]
            system = replace(
                voter,
                name=f"{voter.name}_{suffix}",
                title=f"{voter.title}, {title}",
                votes=min(k, len(finals[0])),
            )
            voted[system.name] = system, [_vote(system, rows) for rows in finals]
    return voted


def _vote(system: System, samples: Sequence[Row]) -> Outcomes:
    """One question's vote. All samples are of one prompt, which is read once."""
    (vote,) = scoring.answers(system, [[row] for row in samples[: system.votes]])
    return (replace(vote, novel_tokens=vote.prompt_tokens),)
