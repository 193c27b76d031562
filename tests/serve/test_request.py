"""What is taken of a request, and what is refused, with the field in OpenAI's `param`."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malt_jax.serve import fields, request
from malt_jax.serve.backend import Message, Options
from malt_jax.serve.refused import Refused

ROLES = ("generator", "verifier", "refiner")
MODELS = ("team", "team-vote", *ROLES)
USER = {"role": "user", "content": "1+1"}


def chat(**given: Any) -> request.ChatRequest:
    return request.chat({"model": "team", "messages": [USER], **given}, MODELS)


def test_what_is_not_given_is_as_the_team_was_trained() -> None:
    assert chat().options == Options()
    assert (chat().n, chat().stream, chat().include_usage) == (1, False, False)
    assert chat(model="team-vote").options.votes == 3
    assert chat(model="team-vote", votes=5).options.votes == 5


def test_the_fields_of_decoding_arrive() -> None:
    asked = chat(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        max_completion_tokens=9,
        seed=-3,
        stop="a",
        n=2,
        votes=4,
    )
    assert asked.options == Options(4, 0.5, 7, 0.9, 9, -3, ("a",))
    assert asked.n == 2
    assert chat(stop=["a", "b"], max_tokens=9, max_completion_tokens=9).options.stop == ("a", "b")


def test_the_last_user_message_is_the_question() -> None:
    parts = [{"type": "text", "text": "2"}, {"type": "text", "text": "+2"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        USER,
        {"role": "assistant", "content": "2", "reasoning_content": "**generator** 2"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "?"},
    ]
    asked = chat(messages=messages)
    assert asked.question == "2+2"
    assert asked.messages[0] == Message("system", "be brief")


def test_text_is_left_as_it_is() -> None:
    text = "<|im_start|>system\n\x00\u2028{question}</s>"
    assert chat(messages=[{"role": "user", "content": text}]).question == text


@pytest.mark.parametrize(
    "harmless",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": True},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "logprobs": False},
        {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}},
        {"tools": None, "temperature": None, "seed": None, "stop": None, "n": None},
    ],
)
def test_what_changes_nothing_is_ignored(harmless: dict[str, Any]) -> None:
    assert chat(**harmless).options == Options()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temprature": 0.5}, "temprature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 1.0}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"votes": 65}, "votes"),
        ({"votes": 2, "model": "verifier"}, "votes"),
        ({"seed": 1 << 63}, "seed"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": {"a": "b"}}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": ["include_usage"]}, "stream_options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "1+1"}, "messages"),
        ({"messages": ["1+1"]}, "messages.0"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        ({"messages": [USER, {"role": "user"}]}, "messages.1.content"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "messages.0.content"),
        ({"messages": [USER | {"tool_calls": [{}]}]}, "messages.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0",
        ),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(given: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        chat(**given)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert len(str(refused.value)) < 200


def test_an_unknown_model_is_another_error() -> None:
    with pytest.raises(Refused, match="did you mean team") as refused:
        chat(model="teams")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    with pytest.raises(Refused) as refused:
        chat(model="x" * 100_000)
    assert len(str(refused.value)) < 200


def test_a_branch_says_what_the_first_roles_wrote() -> None:
    body = {"question": "1+1", "written": {"verifier": "v", "generator": "g"}, "trained": False}
    question, options = request.team(body, ROLES)
    assert question == "1+1"
    assert list(options.written.items()) == [("generator", "g"), ("verifier", "v")]
    assert not options.trained


@pytest.mark.parametrize(
    "written", [{"verifier": "v"}, {"critic": "c"}, {"generator": 1}, ["generator"], "generator"]
)
def test_no_role_is_passed_over(written: object) -> None:
    with pytest.raises(Refused, match="written"):
        request.team({"question": "1+1", "written": written}, ROLES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"team"',
        b"\xff\xfe\xfd",
        b'{"temperature": NaN}',
        b'{"temperature": -Infinity}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 33 + b"1" + b"}" * 33,
        json.dumps("x").encode("utf-16"),
    ],
)
def test_what_is_no_flat_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        fields.decoded(body)
    assert refused.value.status == 400


def test_an_object_as_deep_as_allowed_is_read() -> None:
    body = b'{"a":' * 31 + b"1" + b"}" * 31
    assert "a" in fields.decoded(body)


VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
JSON = VALUE | st.lists(VALUE, max_size=2) | st.dictionaries(st.text(max_size=3), VALUE, max_size=2)
FIELDS = ("stream", "stream_options", "n", "votes", "stop", "seed", "top_p", "temperature")
FIELDS += ("max_tokens", "tools", "question", "written", "trained", "other")
MESSAGE = st.fixed_dictionaries({"role": st.just("user") | JSON, "content": JSON})
BODY = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS) | JSON, "messages": st.lists(MESSAGE, max_size=2) | JSON},
    optional=dict.fromkeys(FIELDS, JSON),
)


def refusal(read: Callable[[], object]) -> Refused | None:
    try:
        read()
    except Refused as refused:
        return refused
    return None


@settings(max_examples=40)
@given(BODY)
def test_whatever_is_sent_is_read_or_refused_in_a_sentence(body: dict[str, Any]) -> None:
    for read in (partial(request.chat, body, MODELS), partial(request.team, body, ROLES)):
        if refused := refusal(read):
            assert 400 <= refused.status < 500
            assert len(str(refused)) < 300
            json.dumps(refused.body()).encode()
