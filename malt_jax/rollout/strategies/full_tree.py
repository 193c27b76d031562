"""The full tree (MALT, section 4.1): n samples of the first role, n of the second on each, and so
on. With a branching of (k, 1, 1) it is k passes of the chain."""

import itertools
import operator
from collections.abc import Iterator, Sequence

from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree


def full_tree(team: Team, branching: Sequence[int] = ()) -> Strategy:
    """Every role in the chain's order on every sample of the role before it.

    `branching` are the samples of a prompt by role, those of the roles themselves if it is empty. A
    path holds the child indices from the root. The first role and the last give answers.
    """
    children = tuple(branching) or tuple(role.branching for role in team.roles)
    places = {role.name: i for i, role in enumerate(team.roles)}
    limits, last = team.limits, len(team.roles) - 1

    def asks(tree: Tree, fresh: Sequence[Node]) -> Iterator[Ask]:
        if not fresh:
            yield ask(0, None)
        for node in fresh:
            if places[node.role] < last:
                yield ask(places[node.role] + 1, node)

    def ask(place: int, parent: Node | None) -> Ask:
        role, path = team.roles[place], parent.path if parent else ()
        return Ask(
            role,
            [(*path, child) for child in range(children[place])],
            adapter=role.name,
            answers=place in (0, last),
            parent=parent,
            seen={node.role: node.text for node in parent.lineage} if parent else {},
            limits=limits,
        )

    return Strategy(team, asks, nodes_per_question(children))


def passes(team: Team, k: int) -> Strategy:
    """k samples of the first role, each carried through the chain."""
    return full_tree(team, (k, *[1] * (len(team.roles) - 1)))


def nodes_per_question(branching: Sequence[int]) -> int:
    """Nodes of one tree: n_1 + n_1 n_2 + ... (39 for the paper's n = 3)."""
    return sum(itertools.accumulate(branching, operator.mul))
