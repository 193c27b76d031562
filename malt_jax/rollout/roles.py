"""Roles as data: a chain of (name, prompt, limits). What a role sees is what its prompt names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from malt_jax.config.settings import RoleSettings, Settings
from malt_jax.text import placeholders
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question


@dataclass(frozen=True)
class Role:
    """One step of the chain. `sees` names the fields its prompt shows: question, hint, or earlier
    roles."""

    name: str
    prompt: str
    sees: tuple[str, ...]
    branching: int
    max_new_tokens: int


ALWAYS_SHOWN = ("question", "hint")


def chain(settings: Settings) -> tuple[Role, ...]:
    """The roles in order. Raises ValueError if a prompt names something that its role cannot see,
    and for a role that is named as what every prompt may show."""
    return in_order({name: settings.roles[name] for name in settings.chain})


def in_order(settings: Mapping[str, RoleSettings]) -> tuple[Role, ...]:
    """Roles that work one after another, by name. Raises ValueError as `chain` does."""
    known = list(ALWAYS_SHOWN)
    roles = []
    for name, of_role in settings.items():
        if name in ALWAYS_SHOWN:
            raise ValueError(
                f"config.chain: {{{name}}} in a prompt is the {name} itself; give the role "
                f"{name!r} another name"
            )
        role = _role(name, of_role, known)
        roles.append(role)
        known.append(name)
    return tuple(roles)


def _role(name: str, settings: RoleSettings, known: Sequence[str]) -> Role:
    sees = placeholders.fields(settings.prompt)
    for field in sees:
        if field not in known:
            raise ValueError(
                f"config.roles.{name}.prompt: {{{field}}} is not one of {list(known)}; "
                "a role sees the question and the roles before it in config.chain"
            )
    if "question" not in sees:
        raise ValueError(f"config.roles.{name}.prompt: does not show the {{question}}")
    return Role(name, settings.prompt, sees, settings.branching, settings.max_new_tokens)


def prompt_ids(
    role: Role,
    question: Question,
    hint: str,
    ancestors: Mapping[str, str],
    limits: Mapping[str, int],
    tokenizer: Tokenizer,
) -> list[int]:
    """The prompt of one node as token ids.

    An ancestor's text is cut to as many tokens as its role may write (`limits`): encoding a
    completion anew can give more tokens than were sampled, and the longest prompt must be known
    before a run.
    """
    texts = {"question": question.text, "hint": hint, **ancestors}
    fields = {}
    for name in role.sees:
        text = texts[name]
        if name in limits and len(ids := tokenizer.encode(text)) > limits[name]:
            text = tokenizer.decode(ids[: limits[name]])
        fields[name] = text
    return tokenizer.prompt(role.prompt, fields)


def question_budget(roles: Sequence[Role], hint: str, context: int, tokenizer: Tokenizer) -> int:
    """The most tokens a question may have if every prompt and completion of the chain is to fit
    the context.

    Raises ValueError if nothing is left for a question.
    """
    limits = {role.name: role.max_new_tokens for role in roles}
    sizes = prompt_sizes(roles, hint, tokenizer)
    left = min(context - sizes[role.name] - role.max_new_tokens for role in roles)
    if left < 1:
        raise ValueError(
            f"config.roles: the prompts and roles.*.max_new_tokens {limits} leave no room "
            f"for a question in the model's context of {context} tokens; lower max_new_tokens"
        )
    return left


def prompt_sizes(roles: Sequence[Role], hint: str, tokenizer: Tokenizer) -> dict[str, int]:
    """The most tokens that each role's prompt may have beside those of the question."""
    limits = {role.name: role.max_new_tokens for role in roles} | {
        "hint": len(tokenizer.encode(hint))
    }
    return {
        role.name: tokenizer.overhead(role.prompt)
        + sum(limits[name] for name in role.sees if name in limits)
        for role in roles
    }
