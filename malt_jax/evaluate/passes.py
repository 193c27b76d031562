"""Passes of teams on held-out questions: sampled where they are missing, and read back.

Every call of this room into `rollout/` stands here. A pass is one sample of a team's first role,
carried through the chain. Systems that differ only in how many passes they use, or in how far they
follow them, share what is stored.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from malt_jax.config.settings import Settings
from malt_jax.evaluate import systems, tokens
from malt_jax.evaluate.scoring import Passes, Row
from malt_jax.models.lora import Adapter
from malt_jax.rollout import driver, records, roles
from malt_jax.rollout.strategies.critiques import critiques
from malt_jax.rollout.strategies.debate import debate
from malt_jax.rollout.strategies.full_tree import passes as chain_passes
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Strategy
from malt_jax.sampler import Sampling
from malt_jax.types import Question, System
from malt_jax.workdir import shards

# What is scored. Texts, which are most of what is stored, are not held for all questions at once.
SCORED = ("question_id", "role", "path", "answer", "status", "prompt_tokens", "completion_tokens")
# The names of teams in files: their directories, and their whole chains in results.
_DIRECTORY = {"base": "base", "trained": "malt"}
_CHAIN = {"base": "ma", "trained": "malt"}


@dataclass(frozen=True)
class Evaluated:
    """What all passes of an evaluation share: the `directory` where those of its split lie, the
    untrained team on the evaluation's random numbers, the adapters that make it the trained one,
    and the questions."""

    directory: Path
    settings: Settings
    team: Team
    adapters: Mapping[str, Adapter | None]
    questions: Sequence[Question]

    def of(self, team: Literal["base", "trained"]) -> Team:
        """The untrained or the trained team."""
        return replace(self.team, adapters=self.adapters) if team == "trained" else self.team


@dataclass(frozen=True)
class Draw:
    """Passes that are sampled and stored together: `count` a question, through `roles`. `place` is
    their directory below `eval/`, `label` their name in results."""

    place: str
    label: str
    team: Literal["base", "trained"]
    roles: tuple[str, ...]
    count: int
    greedy: bool


def place(system: System, settings: Settings) -> str:
    """The directory, below `eval/`, of the passes that a system uses: one a team; where it asks
    other roles than the chain's first ones, is greedy, or takes more votes than
    `config.eval.votes`, one below that."""
    special = []
    if system.roles != settings.chain[: len(system.roles)]:
        special.append(f"only-{'-'.join(system.roles)}")
    if system.decoding == "greedy":
        special.append("greedy")
    elif system.votes > settings.eval.votes:
        special.append(f"votes-{system.votes}")
    return "/".join([_DIRECTORY[system.team], *filter(None, ["-".join(special)])])


def draws(chosen: Sequence[System], settings: Settings) -> dict[str, Draw]:
    """What must be drawn for the systems (a debate needs no passes), by place. Of systems that
    share passes the longest chain and the most votes count."""
    members: dict[str, list[System]] = defaultdict(list)
    for system in chosen:
        if system.kind != "debate":
            members[place(system, settings)].append(system)
    return {where: _draw(where, sharing, settings) for where, sharing in members.items()}


def _draw(where: str, sharing: Sequence[System], settings: Settings) -> Draw:
    longest = max(sharing, key=lambda system: len(system.roles))
    team, greedy = longest.team, longest.decoding == "greedy"
    votes = max(system.votes for system in sharing)
    return Draw(
        place=where,
        label=_CHAIN[team] if where == _DIRECTORY[team] else longest.name,
        team=team,
        roles=longest.roles,
        count=1 if greedy else max(settings.eval.votes, votes),
        greedy=greedy,
    )


def sample(evaluated: Evaluated, draw: Draw) -> list[Passes]:
    """The passes of every question, in the order of the questions."""
    team = evaluated.of(draw.team)
    if draw.greedy:
        team = replace(team, sampling=Sampling(0.0))
    settings = evaluated.settings
    read = settings.eval.critiques or bool(settings.credit.verdict)  # the texts as well
    columns = (*SCORED, "completion") if read else SCORED
    return _passes(evaluated, team, draw.place, draw.place, draw.roles, draw.count, columns)


def more_of(evaluated: Evaluated, system: System, batch: int) -> list[Passes]:
    """`config.eval.votes` further samples of a system of one role, with random numbers of their
    own; `batch` counts from 1."""
    settings, (role,) = evaluated.settings, system.roles
    team = evaluated.of(system.team)
    team = replace(team, random_stream=f"{team.random_stream} {batch}")
    # Below the trained team's directory, with which they go when it is trained anew.
    above = f"{_DIRECTORY['trained']}/" if system.trained else ""
    where = f"{above}{_of_single('single', settings)}-{batch}"
    count = settings.eval.votes
    return _passes(evaluated, team, where, system.title, (role,), count, SCORED)


def debates(evaluated: Evaluated) -> dict[str, list[Row]]:
    """The rows of every question's debate, by question id."""
    settings = evaluated.settings
    team = replace(evaluated.team, roles=(systems.single_role(settings),))
    where = _of_single("debate", settings)
    _store(evaluated, where, "debate", debate(team, settings.eval.debate))
    return by_question(evaluated.directory / where, evaluated.questions)


def recritiqued(
    evaluated: Evaluated, stored: Sequence[Passes], shown: Literal["other", "none"]
) -> dict[str, list[Row]]:
    """The last role's rows on the trained team's stored passes, with another question's critique or
    with none, by question id."""
    ids = (question.id for question in evaluated.questions)
    passes_by_id, where = dict(zip(ids, stored, strict=True)), f"critique-{shown}"
    strategy = critiques(evaluated.of("trained"), passes_by_id, shown)
    _store(evaluated, where, f"critique {shown}", strategy)
    return by_question(evaluated.directory / where, evaluated.questions)


def by_question(
    directory: Path, questions: Sequence[Question], columns: Sequence[str] = SCORED
) -> dict[str, list[Row]]:
    """The stored rows of each question, in the order of the questions and pass by pass; beside
    `columns` with the count of their novel prompt tokens, `novel` among all the question's rows and
    `novel_in_pass` among those of the same pass."""
    rows: dict[str, list[Row]] = {question.id: [] for question in questions}
    for path in shards.paths(directory):
        stored: dict[str, list[Row]] = defaultdict(list)
        for row in records.read(path, (*columns, *tokens.SHARING), arrays=tokens.IDS):
            stored[row["question_id"]].append(row)
        for question in stored.keys() & rows.keys():
            rows[question] = _counted(stored[question])
    return rows


def _counted(stored: Sequence[Row]) -> list[Row]:
    """A question's rows in the order of their passes, with counts in the place of token ids."""
    # A shard holds each tree depth by depth, so each pass is in order.
    rows = sorted(stored, key=lambda row: row["path"][0])
    for name, groups in {"novel": [rows], "novel_in_pass": in_passes(rows)}.items():
        for group in groups:
            for row, count in zip(group, tokens.novel(group), strict=True):
                row[name] = count
    for row in rows:
        del row[tokens.IDS]
    return rows


def in_passes(rows: Sequence[Row]) -> Passes:
    """One question's rows, pass by pass, in each pass in their order."""
    passes: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        passes[row["path"][0]].append(row)
    return [nodes for _, nodes in sorted(passes.items())]


def _of_single(name: str, settings: Settings) -> str:
    """A directory of the single agent's; its own where that is not the chain's first role."""
    role = systems.single_role(settings).name
    return name if role == settings.chain[0] else f"{name}-{role}"


def _passes(
    evaluated: Evaluated,
    team: Team,
    where: str,
    title: str,
    names: tuple[str, ...],
    count: int,
    columns: Sequence[str],
) -> list[Passes]:
    """`count` passes of a team through the roles `names` for every question, sampled where they are
    missing."""
    chain = roles.chain(replace(evaluated.settings, chain=names))
    _store(evaluated, where, title, chain_passes(replace(team, roles=chain), count))
    rows = by_question(evaluated.directory / where, evaluated.questions, columns)
    return [in_passes(of_question) for of_question in rows.values()]


def _store(evaluated: Evaluated, where: str, title: str, strategy: Strategy) -> None:
    """Samples what is missing."""
    # Less branching than a training tree: more questions make the same number of rows.
    per_shard = evaluated.settings.sample.questions_per_shard * 4
    directory = evaluated.directory / where
    driver.store(directory, strategy, evaluated.questions, per_shard, f"evaluate {title}")
