"""What is asked. A field that would change the answer and is not supported is refused by name, a
harmless one ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from malt_jax.config.names import choices
from malt_jax.serve.backend import Message, Options
from malt_jax.serve.fields import Body, flag, integer, number, shown, text
from malt_jax.serve.refused import Refused

TEAM, VOTE = "team", "team-vote"
VOTES = 3
"""Passes of `team-vote` where the request does not say."""
MOST_VOTES, MOST_CHOICES, MOST_STOPS, MOST_MESSAGES = 64, 16, 16, 1024
_MOST_TOKENS = 1 << 20

_DECODING = {"temperature", "top_p", "top_k", "max_tokens", "seed", "stop"}
_CHAT = _DECODING | {"model", "messages", "stream", "stream_options", "n", "votes"}
_CHAT |= {"max_completion_tokens"}
_TEAM = _DECODING | {"question", "votes", "trained", "written"}
_HARMLESS = {"user", "metadata", "store", "service_tier", "safety_identifier", "prediction"}
_HARMLESS |= {"prompt_cache_key", "prompt_cache_retention"}
# Of no effect with these values, and not supported with others.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
_SPEAKERS: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_OF_MESSAGES = {"role", "content", "name", "reasoning_content", "refusal"}


@dataclass(frozen=True)
class ChatRequest:
    """A request of `/v1/chat/completions`."""

    model: str
    messages: tuple[Message, ...]
    options: Options
    n: int
    stream: bool
    include_usage: bool

    @property
    def of_team(self) -> bool:
        """Whether all roles answer, and not a single one."""
        return self.model in (TEAM, VOTE)

    @property
    def question(self) -> str:
        """What a team is asked: the last user message."""
        return next(m.content for m in reversed(self.messages) if m.role == "user")


def chat(body: Body, models: Sequence[str]) -> ChatRequest:
    """A chat request. Raises `Refused` naming the field that is wrong or not supported."""
    _check_fields(body, _CHAT)
    model = text(body.get("model"), "model")
    if model not in models:
        message = f"model: there is no {shown(model)}; {choices(model[:40], models)}"
        raise Refused(404, message, param="model", code="model_not_found")
    stream = flag(body, "stream", False)
    request = ChatRequest(
        model,
        _messages(body),
        _options(
            body,
            votes=integer(body, "votes", 1, MOST_VOTES) or (VOTES if model == VOTE else 1),
            max_tokens=_max_tokens(body),
        ),
        n=integer(body, "n", 1, MOST_CHOICES) or 1,
        stream=stream,
        include_usage=_include_usage(body, stream),
    )
    if request.options.votes > 1 and not request.of_team:
        raise Refused(400, f"votes: {model} is one role; ask the team", param="votes")
    if request.of_team and not any(message.role == "user" for message in request.messages):
        raise Refused(400, "messages: none of the user, so no question", param="messages")
    return request


def team(body: Body, roles: Sequence[str]) -> tuple[str, Options]:
    """A question to the team with what OpenAI's form cannot say: the base in the place of the
    trained adapters, and what the first roles are taken to have written. Raises `Refused`."""
    _check_fields(body, _TEAM)
    options = _options(
        body,
        votes=integer(body, "votes", 1, MOST_VOTES) or 1,
        max_tokens=_max_tokens(body),
        trained=flag(body, "trained", True),
        written=_written(body, roles),
    )
    return text(body.get("question"), "question"), options


def _check_fields(body: Body, known: set[str]) -> None:
    for key, value in body.items():
        if key in known or key in _HARMLESS or value is None:
            continue
        if any(value == neutral for neutral in _NEUTRAL.get(key, ())):
            continue
        if key in _NEUTRAL:
            message = f"{key}: not supported; leave it out"
        else:
            message = f"there is no field {shown(key)}; {choices(key[:40], sorted(known))}"
        raise Refused(400, message, param=key[:40], code="unsupported_parameter")


def _options(body: Body, **others: Any) -> Options:
    top_p = number(body, "top_p", 0, 1)
    if top_p == 0:
        message = "top_p: 0 leaves no token; for the likeliest give temperature 0"
        raise Refused(400, message, param="top_p")
    return Options(
        temperature=number(body, "temperature", 0, 2),
        top_k=integer(body, "top_k", 0, _MOST_TOKENS),
        top_p=top_p,
        seed=integer(body, "seed", -(1 << 63), (1 << 63) - 1),
        stop=_stops(body),
        **others,
    )


def _max_tokens(body: Body) -> int | None:
    old, new = (
        integer(body, key, 1, _MOST_TOKENS) for key in ("max_tokens", "max_completion_tokens")
    )
    if old is not None and new is not None and old != new:
        message = "max_tokens and max_completion_tokens differ; give one of them"
        raise Refused(400, message, param="max_tokens")
    return old if new is None else new


def _stops(body: Body) -> tuple[str, ...]:
    given = body.get("stop")
    stops = [] if given is None else given if isinstance(given, list) else [given]
    if len(stops) > MOST_STOPS:
        raise Refused(400, f"stop: more than {MOST_STOPS}", param="stop")
    texts = tuple(text(stop, "stop") for stop in stops)
    if "" in texts:
        raise Refused(400, "stop: an empty text", param="stop")
    return texts


def _include_usage(body: Body, stream: bool) -> bool:
    given, name = body.get("stream_options"), "stream_options"
    if given is None:
        return False
    if not isinstance(given, dict) or not set(given) <= {"include_usage", "include_obfuscation"}:
        raise Refused(400, f"{name}: only include_usage is known", param=name)
    if not stream:
        raise Refused(400, f"{name}: goes with stream", param=name)
    return flag(given, "include_usage", False)


def _messages(body: Body) -> tuple[Message, ...]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MOST_MESSAGES:
        message = f"messages: not a list of 1 to {MOST_MESSAGES} messages"
        raise Refused(400, message, param="messages")
    return tuple(_message(message, f"messages.{i}") for i, message in enumerate(messages))


def _message(message: object, name: str) -> Message:
    if not isinstance(message, dict):
        raise Refused(400, f"{name}: {shown(message)}, not an object", param=name)
    for key in message:
        if key not in _OF_MESSAGES and message[key]:
            raise Refused(400, f"{name}: {shown(key)} is not supported", param=name)
    role = message.get("role")
    if not isinstance(role, str) or role not in _SPEAKERS:
        expected = ", ".join(_SPEAKERS)
        message = f"{name}.role: {shown(role)}, not one of {expected}"
        raise Refused(400, message, param=f"{name}.role")
    content = message.get("content")
    if isinstance(content, list):
        parts = [_part(part, f"{name}.content.{i}") for i, part in enumerate(content)]
        return Message(_SPEAKERS[role], "".join(parts))
    return Message(_SPEAKERS[role], text(content, f"{name}.content"))


def _part(part: object, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise Refused(400, f'{name}: only parts of "type": "text" are supported', param=name)
    return text(part.get("text"), f"{name}.text")


def _written(body: Body, roles: Sequence[str]) -> dict[str, str]:
    given, name = body.get("written"), "written"
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise Refused(400, f"{name}: {shown(given)}, not an object of texts by role", param=name)
    first = roles[: len(given)]
    if set(given) != set(first):
        message = f"{name}: the roles that have written are the first ones of {', '.join(roles)}"
        raise Refused(400, message, param=name)
    return {role: text(given[role], f"{name}.{role}") for role in first}
