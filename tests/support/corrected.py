"""A strategy of its own that samples by grades: every wrong answer is corrected, two times over,
and so are the corrections, down to a given depth."""

from collections.abc import Iterator, Mapping, Sequence

from malt_jax.rollout.roles import Role
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree
from malt_jax.types import Grade

WIDTH = 2


def corrected(team: Team, corrector: Role, depth: int) -> Strategy:
    first = team.roles[0]

    def asks(tree: Tree, fresh: Sequence[Node]) -> Iterator[Ask]:
        if not fresh:
            paths = [(child,) for child in range(WIDTH)]
            yield Ask(first, paths, adapter=first.name, answers=True)

    def graded(tree: Tree, grades: Mapping[Node, Grade]) -> Iterator[Ask]:
        expanded = {node.parent for node in tree.nodes}
        for node, grade in grades.items():
            if grade.status != "correct" and node not in expanded and node.depth < depth:
                yield Ask(
                    corrector,
                    [(*node.path, child) for child in range(WIDTH)],
                    adapter=first.name,
                    answers=True,
                    parent=node,
                    seen={first.name: node.text},
                    limits=team.limits,
                )

    most = sum(WIDTH ** (level + 1) for level in range(depth + 1))
    return Strategy(team, asks, most, graded)
