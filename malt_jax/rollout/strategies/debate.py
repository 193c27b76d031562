"""Multi-agent debate, a baseline without training: agents read each other's answers and answer
again, and the last round votes.

Source: Du et al., arXiv 2305.14325; MALT's table has 3 agents and 3 rounds. Every agent is the
chain's first role under its adapter. There an agent goes on with its chat and so keeps its own
answers before it; here a prompt is one message, and an agent sees the others' last answers only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from malt_jax.config.evaluation import DebateSettings
from malt_jax.rollout.roles import ALWAYS_SHOWN, Role
from malt_jax.rollout.team import Team
from malt_jax.rollout.tree import Ask, Node, Strategy, Tree
from malt_jax.text import placeholders
from malt_jax.text.tokenizer import Tokenizer

STREAM = "debate"
NAME = "debater"


def debate(team: Team, settings: DebateSettings) -> Strategy:
    """A debate a question: agents * rounds nodes of role "debater", round by round, with paths
    [agent, round] from 0 on. Every one answers, and follows from the agent's own before it.

    The first round is one prompt for all agents; in the others each reads what the others said in
    the round before, for which the round waits.
    """
    first, agents, rounds = team.roles[0], settings.agents, settings.rounds
    opening, again, names = replace(first, name=NAME), debater(first, settings), _names(agents)
    limits = dict.fromkeys(names, first.max_new_tokens)

    def asks(tree: Tree, fresh: Sequence[Node]) -> Iterator[Ask]:
        if not fresh:
            paths = [(agent, 0) for agent in range(agents)]
            yield Ask(opening, paths, adapter=first.name, answers=True)
            return
        turn = fresh[0].depth
        said = {node.path[0]: node for node in tree.nodes if node.depth == turn}
        if len(said) < agents or turn + 1 == rounds:
            return
        for agent in range(agents):
            others = [said[other].text for other in range(agents) if other != agent]
            yield Ask(
                again,
                [(agent, turn + 1)],
                adapter=first.name,
                answers=True,
                parent=said[agent],
                seen=dict(zip(names, others, strict=True)),
                limits=limits,
            )

    return Strategy(replace(team, roles=(first,), random_stream=STREAM), asks, agents * rounds)


def debater(first: Role, settings: DebateSettings) -> Role:
    """An agent after the first round. Each of the other agents' answers is a field of its own, so
    that the prompt's length is bounded by theirs.

    Raises ValueError if the prompt shows anything else.
    """
    names = _names(settings.agents)
    others = "\n\n".join(settings.other.replace("{other}", f"{{{name}}}") for name in names)
    prompt = settings.prompt.replace("{others}", others)
    sees = placeholders.fields(prompt)
    if unknown := sorted(set(sees) - {*ALWAYS_SHOWN, *names}):
        raise ValueError(
            f"config.eval.debate: {{{unknown[0]}}} in a prompt has no text; a debater sees "
            "{question}, {hint} and {others}"
        )
    return Role(NAME, prompt, sees, 1, first.max_new_tokens)


def prompt_size(first: Role, settings: DebateSettings, hint: str, tokenizer: Tokenizer) -> int:
    """The most tokens that a debater's prompt may have beside those of the question; it writes up
    to `first.max_new_tokens`. The counterpart of `roles.prompt_sizes`."""
    role = debater(first, settings)
    hinted = len(tokenizer.encode(hint)) if "hint" in role.sees else 0
    answers = (settings.agents - 1) * first.max_new_tokens
    return tokenizer.overhead(role.prompt) + hinted + answers


def question_budget(
    first: Role, settings: DebateSettings, hint: str, context: int, tokenizer: Tokenizer
) -> int:
    """The most tokens a question may have if a debater's prompt and answer are to fit the context:
    the counterpart of `roles.question_budget`.

    Raises ValueError if nothing is left for a question.
    """
    limit = first.max_new_tokens
    left = context - prompt_size(first, settings, hint, tokenizer) - limit
    if left < 1:
        raise ValueError(
            f"config.eval.debate: a prompt with the answers of {settings.agents - 1} other agents, "
            f"each of up to config.roles.{first.name}.max_new_tokens={limit} tokens, leaves no "
            f"room for a question in the model's context of {context} tokens; lower that limit or "
            "config.eval.debate.agents, or leave 'debate' out of config.eval.systems"
        )
    return left


def _names(agents: int) -> list[str]:
    return [f"other_{i}" for i in range(1, agents)]
