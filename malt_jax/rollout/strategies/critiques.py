"""Whether the critique does anything: the last role of a team again on stored passes, with the same
random numbers, but with another text in the place of what the role before it said.

What then differs, the critique alone has done.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree

Shown = Literal["own", "other", "none"]
Passes = list[list[dict[str, Any]]]
"""One question's passes: `passes[sample][depth]` is a node's row."""


def critiques(team: Team, passes: Mapping[str, Passes], shown: Shown) -> Strategy:
    """The last role on every stored pass once more: k answering nodes a question.

    Each has the path, and so the random key, of the stored node that it stands beside. It is a root
    all the same: a parent is a place among a tree's own nodes, and the solution and its critique
    lie with the passes, where the beginnings of the path name them. Rows of them here would be
    sampled, paid for and audited twice.

    `team` is the one that made the passes, with its adapters, seed and stream; `passes` are those
    of all questions by id, of which a part may be asked. In the place of what the role before the
    last said stands its "own" text (on a CPU in float32 the stored completions come out again, bit
    by bit), that of the same pass of the "other" question (see `strangers`), or nothing. Raises
    ValueError for passes of another chain, and if the last role does not see the one before it.
    """
    last, critic, limits = team.roles[-1], _critic(team), team.limits
    others = strangers(passes) if shown == "other" else {}

    def asks(tree: Tree, fresh: Sequence[Node]) -> Iterator[Ask]:
        for i, nodes in enumerate(() if fresh else passes[tree.question.id]):
            _check_chain(team, nodes)
            seen = {row["role"]: row["completion"] for row in nodes[:-1]}
            if shown == "none":
                seen[critic] = ""
            elif shown == "other":
                seen[critic] = passes[others[tree.question.id]][i][-2]["completion"]
            paths = [(*nodes[-2]["path"], 0)]
            yield Ask(last, paths, adapter=last.name, answers=True, seen=seen, limits=limits)

    most = max(map(len, passes.values()))
    return Strategy(replace(team, roles=(last,)), asks, most)


def strangers(ids: Iterable[str]) -> dict[str, str]:
    """For every question another one, and each of them once: the sorted ids turned by half their
    number, because neighbours in that order often ask nearly the same.

    Raises ValueError if there are not two.
    """
    order = sorted(ids)
    if len(order) < 2:
        raise ValueError("another question's critique needs two; raise config.data.eval_questions")
    half = len(order) // 2
    return dict(zip(order, order[half:] + order[:half], strict=True))


def _critic(team: Team) -> str:
    if len(team.roles) < 2 or team.roles[-2].name not in team.roles[-1].sees:
        raise ValueError(
            f"config.roles.{team.roles[-1].name}.prompt: does not show the role before it, so "
            "there is no critique to replace"
        )
    return team.roles[-2].name


def _check_chain(team: Team, nodes: Sequence[dict[str, Any]]) -> None:
    stored, chain = [row["role"] for row in nodes], [role.name for role in team.roles]
    if stored != chain:
        raise ValueError(f"these passes are of the chain {stored}, not of {chain}")
