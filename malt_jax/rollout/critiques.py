"""Whether the critique does anything: the last role of a team again on stored passes, with the same
random numbers, but with another text in the place of what the role before it said.

What then differs, the critique alone has done.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from malt_jax.rollout import tree
from malt_jax.rollout.roles import prompt_ids
from malt_jax.rollout.tree import Node, Row, Team
from malt_jax.sampler import Request, Work
from malt_jax.types import Question

Shown = Literal["own", "other", "none"]
Passes = list[list[Row]]
"""One question's passes: `passes[sample][depth]` is a node's row."""


def grow(
    team: Team,
    passes: Mapping[str, Passes],
    questions: Sequence[Question],
    shown: Shown,
    per_batch: int,
    progress: Callable[[int], Any],
    work: Work,
) -> Iterator[list[Row]]:
    """The last role's rows of the questions' passes, drawn anew, `per_batch` questions at a time
    and in their order: k rows a question, with the paths of the stored ones.

    `team` is the one that made the passes, with its adapters, seed and stream; `passes` are those
    of all questions by id, of which `questions` may be a part. In the place of what the role before
    the last said stands its "own" text (on a CPU in float32 the stored completions come out again,
    bit by bit), that of the same pass of the "other" question (see `strangers`), or nothing. Rows
    have no reward, value or label. Raises ValueError for passes of another chain, and if the last
    role does not see the one before it.
    """
    for answers in tree.in_order(
        questions, per_batch, expand(team, passes, questions, shown, progress, work)
    ):
        yield tree.answers(team, [node for nodes in answers for node in nodes])


def expand(
    team: Team,
    passes: Mapping[str, Passes],
    questions: Iterable[Question],
    shown: Shown,
    progress: Callable[[int], Any] = lambda nodes: None,
    work: Work | None = None,
) -> Iterator[tuple[Question, list[Node]]]:
    """Each question with the last role's new nodes, a pass each in order, as soon as all are there.
    See `grow`."""
    last, critic = team.roles[-1], _critic(team)
    limits = {role.name: role.max_new_tokens for role in team.roles}
    others = strangers(passes) if shown == "other" else {}

    def ask(question: Question) -> Iterator[Request]:
        for i, nodes in enumerate(passes[question.id]):
            _check_chain(team, nodes)
            seen = {row["role"]: row["completion"] for row in nodes[:-1]}
            if shown == "none":
                seen[critic] = ""
            elif shown == "other":
                seen[critic] = passes[others[question.id]][i][-2]["completion"]
            prompt = prompt_ids(last, question, team.task.answer_hint, seen, limits, team.tokenizer)
            parent = tuple(nodes[-2]["path"])
            keys = tree.node_keys(team.seed, team.stream, [(question.id, parent)], 1)[0]
            yield Request(prompt, keys, last.max_new_tokens, tag=(question, (*parent, 0)))

    pending = tree.Pending(request for question in questions for request in ask(question))
    found: dict[str, list[Node]] = defaultdict(list)
    adapters = [team.adapters.get(last.name)]
    for request, (completion,) in tree.sample(team, pending, adapters, work):
        question, path = request.tag
        text = team.tokenizer.decode(completion.tokens)
        nodes = found[question.id]
        nodes.append(Node(question, last.name, path, list(request.prompt), completion, text))
        progress(1)
        if len(nodes) == len(passes[question.id]):
            yield question, sorted(found.pop(question.id), key=lambda node: node.path)


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


def _check_chain(team: Team, nodes: Sequence[Row]) -> None:
    stored, chain = [row["role"] for row in nodes], [role.name for role in team.roles]
    if stored != chain:
        raise ValueError(f"these passes are of the chain {stored}, not of {chain}")
