"""Settings that nobody would give: every one of them parses, or the error names its key."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import change, good

from malt_jax.recipe import parse
from malt_jax.rollout import roles
from malt_jax.workdir.run_record import flat

GOOD = good()
LEAVES = sorted(flat(GOOD))
GROUPS = sorted({key.rpartition(".")[0] for key in LEAVES if "." in key} | {"roles"})
TEXTS = st.text(st.characters(), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.sampled_from([2**31, -(2**63), 10**30, 10**5000, 1e308]),
    st.floats(),
    TEXTS,
    st.binary(max_size=3),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(TEXTS, SCALARS, max_size=2)
)


def outcome(config: dict, key: str) -> str:
    """What a refusal says, which names the key; empty where nothing is refused. Any error but a
    ValueError is a failure."""
    try:
        parsed = parse(config)
        roles.chain(parsed)
    except ValueError as error:
        said = str(error)
    else:
        json.dumps(dataclasses.asdict(parsed), allow_nan=False)  # as config.json and the card do
        return ""
    assert said.startswith("config.")
    assert f"config.{key}" in said
    return said


@settings(max_examples=400)
@given(st.sampled_from(LEAVES + GROUPS), VALUES)
def test_any_value_of_any_key(key: str, value):
    outcome(change(copy.deepcopy(GOOD), key, value), key)


@given(st.sampled_from(["", *GROUPS]), TEXTS, SCALARS)
def test_a_key_that_is_not_known(group: str, name: str, value):
    config = copy.deepcopy(GOOD)
    place = config
    for part in filter(None, group.split(".")):
        place = place[part]
    if group == "roles" or name in place:
        return
    place[name] = value
    assert "unknown key" in outcome(config, f"{group}.{name}" if group else name)


@given(st.text("{}generatorquestionhint ", max_size=40))
def test_any_prompt(text: str):
    key = "roles.generator.prompt"
    outcome(change(copy.deepcopy(GOOD), key, text), key)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("roles", 5, "config.roles: 5 is not a group of settings"),
        ("roles", {"../up": {}}, "config.roles: '../up' is no name"),
        ("sft.learning_rate", float("inf"), "config.sft.learning_rate: must be a number of"),
        ("sft.learning_rate", 10**400, "config.sft.learning_rate: must be a number of"),
        ("seed", 2**31, "config.seed: must be a number of at most 2147483647"),
        ("workdir", "a\0b", r"config.workdir: holds the character U\+0000"),
        ("lora.targets", ("query",), r"config.lora.targets\[0\]: 'query' is not one of"),
        ("eval.votes", 5000, "config.sample.rows: too few: config.eval.votes is 5000"),
        ("chain", ("verifier",), "roles before it in config.chain"),
    ],
)
def test_what_went_through_or_ended_in_a_traceback(key: str, value, message: str):
    """An AttributeError, a path out of the work directory, weights of NaN after the first step, an
    OverflowError, and an error after hours of collecting."""
    config = change(copy.deepcopy(GOOD), key, value)
    with pytest.raises(ValueError, match=message):
        roles.chain(parse(config))
