"""The engine: whatever is asked beside it, a request is answered as if it were alone; nothing is
lost, nothing is kept."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest
import small
from asking import adapter, heard, quiet, run, team, texts, until

import malt_jax
from malt_jax.serve.backend import Answered, Began, Ended, Message, Options
from malt_jax.serve.engine import Engine

ADAPTERS = {"generator": adapter(1), "refiner": adapter(2)}
SEEDED = Options(votes=2, seed=7)
LONG = Options(votes=1, max_tokens=400)
USER = [Message("user", "1+2")]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = team(ADAPTERS).engine()
    yield made
    asyncio.run(made.close())


def test_a_request_is_told_from_its_first_role_to_its_answer(engine):
    async def test(engine: Engine) -> None:
        events = await heard(engine.ask("1+2", Options(votes=2, seed=0)))
        written = texts(events)
        assert {*written} == {(number, role) for number in (0, 1) for role in engine.roles}
        begun = [(e.run, e.role) for e in events if isinstance(e, Began)]
        for number in (0, 1):
            assert [role for at, role in begun if at == number] == list(engine.roles)
        answered = events[-1]
        assert answered.text in {written[0, "refiner"], written[1, "refiner"]}
        ends = [e for e in events if isinstance(e, Ended)]
        assert answered.tokens_written == sum(e.completion_tokens for e in ends)
        assert {e.finish for e in ends} <= {"stop", "length"}
        assert sum(answered.votes.values()) <= 2

    run(engine, test)


def test_a_seeded_request_has_the_same_text_alone_and_under_load(engine):
    """Among 20 others, each sampled its own way, of which some are given up on the way."""

    async def test(engine: Engine) -> None:
        alone = texts(await heard(engine.ask("7-3", SEEDED)))
        ways = [
            Options(
                votes=1 + i % 3, temperature=(0.0, 0.7, 1.5)[i % 3], top_k=i % 4, top_p=1 - i / 50
            )
            for i in range(20)
        ]
        others = [
            asyncio.ensure_future(heard(engine.ask(f"{i}+1", way))) for i, way in enumerate(ways)
        ]
        seeded = asyncio.ensure_future(heard(engine.ask("7-3", SEEDED)))
        given_up = engine.ask("9+9", LONG)
        async with aclosing(given_up):
            await anext(given_up)
        assert texts(await seeded) == alone
        for other in await asyncio.gather(*others):
            texts(other)
        assert texts(await heard(engine.ask("7-3", SEEDED))) == alone
        assert texts(await heard(engine.ask("7-3", replace(SEEDED, seed=8)))) != alone
        unseeded = [texts(await heard(engine.ask("7-3", Options()))) for _ in range(3)]
        assert unseeded[0] != unseeded[1] or unseeded[1] != unseeded[2]

    run(engine, test)


@pytest.mark.parametrize("role", ["generator", "verifier"])
def test_greedy_text_of_a_role_is_the_samplers_under_its_adapter(engine, role):
    async def test(engine: Engine) -> None:
        options = Options(temperature=0.0, max_tokens=30)
        written = texts(await heard(engine.chat(role, USER, options)))
        (expected,) = malt_jax.sample(
            small.model(scale=4.0), ["1+2"], max_new_tokens=30, temperature=0.0,
            adapter=ADAPTERS.get(role),
        )  # fmt: skip
        assert written == {(0, role): expected[0]}
        base = texts(await heard(engine.chat(role, USER, replace(options, trained=False))))
        assert (base == written) == (role not in ADAPTERS)

    run(engine, test)


def test_what_was_read_before_is_counted_as_shared(engine):
    async def test(engine: Engine) -> None:
        before = engine.counters()
        asked = [await heard(engine.ask("8-5+2", replace(SEEDED, votes=3, seed=i))) for i in (1, 1)]
        first, second = (events[-1] for events in asked)
        begun = {(e.role, e.prompt_tokens) for e in asked[0] if isinstance(e, Began)}
        assert len([1 for role, _ in begun if role == "generator"]) == 1
        assert first.tokens_read == second.tokens_read
        assert first.tokens_shared < first.tokens_read / 2
        # All but the last token of each prompt, which a row reads itself.
        prompts = {
            e.prompt_tokens for e in asked[1] if isinstance(e, Began) and e.role == "generator"
        }
        assert len(prompts) == 1
        assert second.tokens_read - second.tokens_shared <= 1 + 3 + 3
        after = engine.counters()
        read = after["malt_tokens_read_total"] - before["malt_tokens_read_total"]
        computed, shared = (
            after[f"malt_tokens_{kind}_total"] - before[f"malt_tokens_{kind}_total"]
            for kind in ("computed", "shared")
        )
        assert read == computed + shared > first.tokens_read

    run(engine, test)


def test_nothing_is_kept_of_200_requests(engine):
    async def test(engine: Engine) -> None:
        short = Options(max_tokens=3)
        before = engine.counters()["malt_requests_finished_total"]
        for _ in range(4):
            answers = await asyncio.gather(*(heard(engine.ask(f"{i}-1", short)) for i in range(50)))
            assert all(isinstance(events[-1], Answered) for events in answers)
        await until(quiet(engine))
        assert engine.counters()["malt_requests_finished_total"] == before + 200

    run(engine, test)


def test_a_stop_string_ends_a_role_where_it_is_written(engine):
    async def test(engine: Engine) -> None:
        options = Options(temperature=0.0, max_tokens=24)
        whole = texts(await heard(engine.chat("generator", USER, options)))[0, "generator"]
        stop = whole[5:8]
        cut = await heard(engine.chat("generator", USER, replace(options, stop=("\0", stop))))
        ended = next(e for e in cut if isinstance(e, Ended))
        at = whole.index(stop)
        assert texts(cut) == {(0, "generator"): whole[:at]}
        assert (ended.finish, ended.completion_tokens) == ("stop", at + 3)
        await until(quiet(engine))

    run(engine, test)


def test_what_is_written_already_is_read_and_not_written_again(engine):
    """The same dice: with another role's text as it was, the later roles write what they wrote."""

    async def test(engine: Engine) -> None:
        options = Options(seed=3)
        whole = texts(await heard(engine.ask("4+4", options)))
        given = {role: whole[0, role] for role in ("generator", "verifier")}
        again = texts(await heard(engine.ask("4+4", replace(options, written=given))))
        assert again == {(0, "refiner"): whole[0, "refiner"]}
        edited = texts(await heard(engine.ask("4+4", replace(options, written={"generator": "9"}))))
        assert {*edited} == {(0, "verifier"), (0, "refiner")}
        assert edited[0, "verifier"] != whole[0, "verifier"]

    run(engine, test)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        (" \n", Options(), "question: empty"),
        ("1+" * 300, Options(), r"question: 600 tokens or more, and .* room for"),
        ("1" * 100_000, Options(), "100,000 characters, of which"),
        ("1+1", Options(votes=0), "votes: 0; give 1 or more"),
        ("1+1", Options(votes=10_000), "votes: 10000; give at most 272"),
        ("1+1", Options(temperature=-0.1), "temperature: -0.1; give 0"),
        ("1+1", Options(temperature=float("nan")), "temperature: nan"),
        ("1+1", Options(top_p=0.0), "top_p: 0.0"),
        ("1+1", Options(top_k=-1), "top_k: -1"),
        ("1+1", Options(max_tokens=0), "max_tokens: 0"),
        ("1+1", Options(stop=("a", "")), "stop: "),
        ("1+1", Options(written={"verifier": "x"}), r"written: \['verifier'\] are not the first"),
        (
            "1+1",
            Options(written=dict.fromkeys(("generator", "verifier", "refiner"), "x")),
            "written",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(engine, question, options, message):
    async def test(engine: Engine) -> None:
        before = engine.counters()["malt_tokens_read_total"]
        with pytest.raises(ValueError, match=message):
            await heard(engine.ask(question, options))
        assert engine.counters()["malt_tokens_read_total"] == before

    run(engine, test)


@pytest.mark.parametrize(
    ("role", "messages", "options", "message"),
    [
        ("critic", USER, Options(), r"role: no 'critic'; the team has \['generator'"),
        ("generator", [], Options(), "messages: empty"),
        ("generator", [Message("user", "1" * 500)], Options(max_tokens=20), "context of 512"),
        ("generator", [Message("user", "1" * 520)], Options(), "tokens and 1 new ones"),
        ("generator", USER, Options(max_tokens=600), "600 new ones do not fit"),
    ],
)
def test_a_conversation_that_cannot_be_is_refused(engine, role, messages, options, message):
    async def test(engine: Engine) -> None:
        with pytest.raises(ValueError, match=message):
            await heard(engine.chat(role, messages, options))

    run(engine, test)


def test_a_conversation_reads_all_its_turns(engine):
    async def test(engine: Engine) -> None:
        turns = [Message("system", "Be brief."), *USER, Message("assistant", "3"), *USER]
        events = await heard(engine.chat("generator", turns, Options(seed=1)))
        prompt = small.tokenizer().conversation([(turn.role, turn.content) for turn in turns])
        assert events[0] == Began(0, "generator", len(prompt))
        texts(events)

    run(engine, test)
