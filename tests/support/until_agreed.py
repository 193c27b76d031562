"""A strategy of its own, in a file of its own: the generator is asked again until two of its
answers are the same, at most five times; then another role reads what was agreed on."""

from collections import Counter
from collections.abc import Iterator, Sequence

from malt_jax.rollout.roles import Role
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree

MOST = 5


def until_agreed(team: Team, reader: Role) -> Strategy:
    asked = team.roles[0]

    def asks(tree: Tree, fresh: Sequence[Node]) -> Iterator[Ask]:
        if fresh and fresh[0].role == reader.name:
            return
        said = Counter(node.text for node in tree.nodes)
        agreed, times = said.most_common(1)[0] if said else ("", 0)
        if times < 2 and len(tree.nodes) < MOST:
            yield Ask(asked, [(len(tree.nodes),)], adapter=asked.name, answers=True)
            return
        last = next(node for node in tree.nodes if node.text == agreed)
        yield Ask(
            reader,
            [(*last.path, 0)],
            adapter=asked.name,
            answers=True,
            parent=last,
            seen={asked.name: agreed},
            limits=team.limits,
        )

    return Strategy(team, asks, MOST + 1)
