"""The endpoint as OpenAI's own client and a plain one see it, over a backend that answers by
rule."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from serving import PROMPT_TOKENS, ROLES, SHARED, FakeBackend, Served, serving

from malt_jax.serve.backend import Message, Options

QUESTION = [{"role": "user", "content": "1+1"}]
TURNS = "**generator**\n\ngenerator says 0\n\n**verifier**\n\nverifier says 0\n\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    served.backend.asked.clear()
    served.backend.ended.clear()
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_the_models_are_the_team_and_its_roles(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["team", "team-vote", *ROLES]
    assert client.models.retrieve("verifier").owned_by == "malt_jax"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("critic")


def test_a_team_answers_with_its_turns_as_reasoning(client: Any) -> None:
    done = client.chat.completions.create(model="team", messages=QUESTION)
    (choice,) = done.choices
    assert choice.message.content == "refiner says 0"
    assert choice.message.reasoning_content == TURNS
    assert choice.finish_reason == "stop"
    assert choice.malt == {"answer": "0", "votes": {"0": 1}, "verdict": True}
    assert done.usage.prompt_tokens == 3 * PROMPT_TOKENS
    assert done.usage.completion_tokens == 9
    assert done.usage.total_tokens == 39
    assert done.usage.prompt_tokens_details.cached_tokens == 3 * SHARED


@pytest.mark.parametrize("model", ["team", "team-vote", "refiner"])
def test_a_stream_adds_up_to_the_whole(client: Any, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=QUESTION, seed=5, n=2)
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            seed=5,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    last = chunks.pop()
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)
    assert {chunk.id for chunk in chunks} == {last.id}
    for choice in whole.choices:
        parts = [c.choices[0] for c in chunks if c.choices[0].index == choice.index]
        assert parts[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in parts) == choice.message.content
        reasoning = "".join(getattr(c.delta, "reasoning_content", "") for c in parts)
        assert reasoning == getattr(choice.message, "reasoning_content", "")
        assert [c.finish_reason for c in parts if c.finish_reason] == [choice.finish_reason]
        assert parts[-1].malt == choice.malt
    texts = [choice.message.content for choice in whole.choices]
    assert texts[0].endswith(" 5")
    assert texts[0] != texts[1], "every choice has a seed of its own"


def test_content_is_streamed_as_it_is_written(client: Any) -> None:
    chunks = client.chat.completions.create(model="team", messages=QUESTION, stream=True)
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert [text for text in texts if text] == ["refiner", " says", " 0"]


def test_the_passes_of_a_vote_are_told_one_after_another(client: Any) -> None:
    """Not as they are written, side by side, which differs from one time to the next."""
    done = client.chat.completions.create(model="team-vote", messages=QUESTION, seed=7)
    message = done.choices[0].message
    assert message.content == "refiner says 7"
    assert done.choices[0].malt["votes"] == {"7": 2, "8": 1}
    turns = [
        f"**{role} {run + 1}**\n\n{role} says {answer}\n\n"
        for run, answer in enumerate((7, 7, 8))
        for role in ROLES
    ]
    assert message.reasoning_content == "".join(turns)


def test_a_role_has_the_conversation_as_it_stands(client: Any, served: Served) -> None:
    messages = [{"role": "system", "content": "be brief"}, *QUESTION]
    done = client.chat.completions.create(
        model="verifier", messages=messages, max_tokens=3, temperature=0
    )
    assert done.choices[0].message.content == "verifier says 0"
    assert not hasattr(done.choices[0].message, "reasoning_content")
    assert done.choices[0].finish_reason == "length"
    asked = (Message("system", "be brief"), Message("user", "1+1"))
    assert served.backend.asked == [(asked, Options(temperature=0.0, max_tokens=3))]


def test_the_asynchronous_client_streams_as_well(served: Served) -> None:
    async def texts() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="unused") as client:
            create = client.chat.completions.create
            stream = await create(model="team", messages=QUESTION, stream=True)
            return [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(asyncio.run(texts())) == "refiner says 0"


def test_errors_have_openais_form(client: Any) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as refused:
        create(model="team", messages=QUESTION, tools=[{"type": "function"}])
    assert refused.value.param == "tools"
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="critic", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="the question is empty"):
        create(model="team", messages=[{"role": "user", "content": " "}])
    with pytest.raises(openai.BadRequestError, match="the question is empty"):
        create(model="team", messages=[{"role": "user", "content": " "}], stream=True)


def test_a_failure_in_the_middle_is_told(client: Any, served: Served) -> None:
    boom = [{"role": "user", "content": "boom"}]
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="team", messages=boom)
    assert "planted" not in str(failed.value)
    stream = client.chat.completions.create(model="team", messages=boom, stream=True)
    with pytest.raises(openai.APIError, match="the server failed"):
        list(stream)
    assert served.backend.under_way == 0
    assert served.chat().status_code == 200


def test_no_room_and_not_ready_are_told_apart() -> None:
    with serving(FakeBackend(room=0)) as full:
        answer = full.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["code"] == "queue_full"
    with serving(FakeBackend(ready=False)) as loading:
        answer = loading.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        health = loading.get("/health")
        assert (health.status_code, health.json()) == (503, {"ready": False})


def test_the_teams_own_events_carry_what_openais_form_cannot(served: Served) -> None:
    body = {"question": "1+1", "trained": False, "written": {"generator": "by hand"}, "seed": 2}
    answer = served.post("/v1/team/events", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["kind"] for event in events] == [
        *(["began", *["delta"] * 3, "ended"] * 2),
        "answered",
    ]
    assert events[0] == {"kind": "began", "run": 0, "role": "verifier", "prompt_tokens": 10}
    assert events[-1]["text"] == "refiner says 2"
    options = served.backend.asked[-1][1]
    assert (options.trained, options.written) == (False, {"generator": "by hand"})
    assert served.get("/v1/team").json() == {"roles": [*ROLES], "ready": True}


def test_metrics_are_prometheus_text(served: Served) -> None:
    served.chat()
    lines = served.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["malt_ready"] == "1"
    assert values["malt_tokens_written_total"] == "3"
    assert "# TYPE malt_tokens_written_total counter" in lines
    assert int(values['malt_http_answers_total{status="200"}']) > 0
    for name in ("malt_time_to_first_token_seconds", "malt_request_duration_seconds"):
        buckets = [
            int(count)
            for key, count in values.items()
            if key.startswith(f'{name}_bucket{{model="team",')
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == int(values[f'{name}_count{{model="team"}}']) > 0
