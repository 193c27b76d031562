"""A chain of roles: what their prompts may show, by one grammar of placeholders."""

from dataclasses import replace

import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import good

from malt_jax import recipe
from malt_jax.config.evaluation import DebateSettings
from malt_jax.config.settings import Settings
from malt_jax.rollout import roles
from malt_jax.rollout.strategies import debate
from malt_jax.text import placeholders


def of(*named: tuple[str, str]) -> Settings:
    """Settings with a chain of these roles and prompts."""
    parsed = recipe.parse(good())
    described = {name: replace(parsed.roles["generator"], prompt=prompt) for name, prompt in named}
    return replace(parsed, chain=tuple(described), roles=described)


@pytest.mark.parametrize("name", ["question", "hint"])
def test_a_role_named_as_what_every_prompt_shows_is_refused(name):
    """Its text would have stood where the question was asked for."""
    chain = of(("generator", "{question}"), (name, "{question} {generator}"))
    with pytest.raises(
        ValueError, match=rf"config.chain: \{{{name}\}} in a prompt .* another name"
    ):
        roles.chain(chain)


def test_what_a_role_sees_is_what_its_prompt_names():
    chain = roles.chain(
        of(("a", "{{question}} is {question}, {hint}"), ("b", "{a} of {question}, {a}, \\boxed{}"))
    )
    assert [role.sees for role in chain] == [("question", "hint"), ("a", "question")]
    with pytest.raises(ValueError, match=r"config.roles.a.prompt: does not show the \{question\}"):
        roles.chain(of(("a", "{{question}}")))
    with pytest.raises(ValueError, match=r"config.roles.a.prompt: \{b\} is not one of"):
        roles.chain(of(("a", "{question} {b}"), ("b", "{question}")))


TOKENIZER = small.tokenizer()


@settings(max_examples=25)  # the chat template is rendered in a process of its own
@given(st.text(st.sampled_from("{}ab \\1_"), max_size=20))
def test_the_fields_of_a_template_are_those_that_the_tokenizer_fills(template):
    """Two grammars told {{a}, {a}} and {{{a}}} apart in two ways: the chain was accepted, and the
    first prompt of a run was not."""
    fields, tokenizer = placeholders.fields(template), TOKENIZER
    tokenizer.prompt(template, dict.fromkeys(fields, "x"))
    for field in fields:
        with pytest.raises(ValueError, match="has no field"):
            tokenizer.prompt(template, {name: "x" for name in fields if name != field})


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("{a} {b} {a}", ("a", "b")),
        ("{{a}}", ()),
        ("{{{a}}}", ()),
        ("{{a}", ("a",)),
        ("{a}}", ("a",)),
        ("\\boxed{} { a } {1}", ()),
    ],
)
def test_placeholders_literally(template, fields):
    assert placeholders.fields(template) == fields


def test_a_debaters_prompt_shows_what_there_is():
    first = roles.Role("generator", "{question}", ("question",), 3, 9)
    shown = debate.debater(first, DebateSettings(3, 2, "{question} {others}", "by {other}"))
    assert shown.sees == ("question", "other_1", "other_2")
    with pytest.raises(ValueError, match=r"config.eval.debate: \{critic\} in a prompt has no text"):
        debate.debater(first, DebateSettings(3, 2, "{question} {others} {critic}", "{other}"))
