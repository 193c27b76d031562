"""What grows from a question: samples, each with the one that it followed from, and what a strategy
asks for next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from malt_jax.rollout.roles import Role
from malt_jax.rollout.team import Team
from malt_jax.sampler import Completion
from malt_jax.types import Grade, Question


@dataclass(frozen=True, eq=False)
class Node:
    """One sample of one role.

    Its random key follows from `path`, which is its own in its tree. `adapter` names the role of
    the team under whose adapter it was drawn; `answers` says whether its text is graded.
    """

    role: str
    path: tuple[int, ...]
    parent: "Node | None"
    prompt: list[int]
    completion: Completion
    text: str
    adapter: str
    answers: bool

    @property
    def lineage(self) -> list["Node"]:
        """The nodes from the root to this one."""
        return [*(self.parent.lineage if self.parent else ()), self]

    @property
    def depth(self) -> int:
        """How many nodes lie above it."""
        return len(self.lineage) - 1


@dataclass
class Tree:
    """A question's samples: while it grows in the order in which they ended, then by depth and
    path."""

    question: Question
    nodes: list[Node] = field(default_factory=list)

    @property
    def parents(self) -> list[int]:
        """Each node's parent by its place in `nodes`, -1 at a root."""
        places: dict[Node | None, int] = {node: i for i, node in enumerate(self.nodes)}
        return [places.get(node.parent, -1) for node in self.nodes]


@dataclass(frozen=True)
class Ask:
    """One prompt and the samples that are wanted of it, one for each of `paths`.

    `seen` holds the texts of the fields that `role`'s prompt shows beside the question and the
    hint, and `limits` the tokens that such a text is cut to. The samples are drawn under the
    adapter of the team's role `adapter`, and graded if `answers`.
    """

    role: Role
    paths: Sequence[tuple[int, ...]]
    adapter: str
    answers: bool
    parent: Node | None = None
    seen: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """What a question's tree grows by, in plain Python.

    `asks(tree, fresh)` is called when a tree begins (with no `fresh` nodes) and after every request
    that is finished (with its nodes, which `tree` holds by then): what it gives is sampled beside
    everything else that is under way. A tree is whole once all that was asked for it is there.
    `nodes` is how many a question may have, for those who wait. `team` is whom to ask; only the
    adapters of its roles are loaded.

    `graded(tree, grades)` is for a strategy that samples by grades: adaptive trees, searches. It is
    called whenever all that was asked for a tree is there and graded, with the nodes by depth and
    path and the grades of those that answer, and what it gives is sampled as well; the tree is
    whole once it gives nothing. So a tree depends on its samples and their grades, not on when
    they came. Without it nothing waits for a grade.
    """

    team: Team
    asks: Callable[[Tree, Sequence[Node]], Iterable[Ask]]
    nodes: int
    graded: Callable[[Tree, Mapping[Node, Grade]], Iterable[Ask]] | None = None
