"""An engine whose queue is full, whose adapters change, whose logits are not finite, that ends."""

import asyncio
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from asking import adapter, heard, quiet, run, team, texts, until

from malt_jax.models import kv_cache
from malt_jax.sampler.session import Pass, Session
from malt_jax.serve.backend import Busy, Message, Options
from malt_jax.serve.engine import Engine
from malt_jax.serve.watch import Watched

LONG = Options(votes=1, max_tokens=400)
USER = [Message("user", "1+2")]


def test_a_request_that_is_given_up_frees_its_rows_and_pages():
    """Of 20 that would write for long, 16 have begun and four wait for a row."""

    async def test(engine: Engine) -> None:
        asked = [engine.chat("verifier", USER, LONG) for _ in range(20)]
        first = [asyncio.ensure_future(anext(events)) for events in asked]
        await until(lambda: engine.counters().get("malt_rows_busy") == 16)
        await until(lambda: engine.counters()["malt_requests_waiting"] == 4)
        for task in first:
            task.cancel()
        await asyncio.gather(*first, return_exceptions=True)
        for events in asked:
            await events.aclose()
        await until(quiet(engine))
        counters = engine.counters()
        assert counters["malt_requests_running"] == counters["malt_requests_waiting"] == 0
        assert counters["malt_requests_cancelled_total"] == 20
        await engine.close()

    run(team(endless=True).engine(), test)


def test_a_full_queue_refuses_and_takes_again():
    async def test(engine: Engine) -> None:
        held = [engine.chat("generator", USER, LONG) for _ in range(18)]
        tasks = [asyncio.ensure_future(anext(events)) for events in held]
        await until(lambda: engine.counters()["malt_rows_busy"] == 16)
        with pytest.raises(Busy, match="18 passes are under way"):
            await heard(engine.ask("1+1", Options()))
        assert engine.counters()["malt_requests_refused_total"] == 1
        for task, events in zip(tasks, held, strict=True):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await events.aclose()
        texts(await heard(engine.ask("1+1", Options())))
        await engine.close()

    run(team(endless=True).engine(queue=2), test)


def test_adapters_that_come_are_taken_up_and_nothing_under_way_is_lost(tmp_path):
    """What is under way ends under the adapters it began with; what comes later begins with the
    others; a file that cannot be read changes nothing."""
    file, loads = tmp_path / "adapter", []

    def load() -> dict:
        loads.append(file.read_text())
        if loads[-1] != "new":
            raise ValueError("planted")
        return {"generator": adapter(5)}

    file.write_text("old")
    watched = Watched([file], load, seconds=0.02)
    options = Options(temperature=0.0, max_tokens=300)

    async def test(engine: Engine) -> None:
        old = texts(await heard(engine.chat("generator", USER, options)))
        under_way = [engine.chat("generator", USER, options) for _ in range(20)]
        first = [asyncio.ensure_future(anext(events)) for events in under_way]
        await first[0]
        file.write_text("broken")
        await until(lambda: bool(loads))
        file.write_text("new")
        await until(lambda: engine.counters()["malt_adapter_swaps_total"] > 0)
        new = texts(await heard(engine.chat("generator", USER, options)))
        assert new != old
        for begun, events in zip(first, under_way, strict=True):
            assert texts([await begun, *await heard(events)]) == old
        assert engine.counters()["malt_requests_failed_total"] == 0
        await until(quiet(engine))
        await engine.close()

    run(Engine(team({"generator": adapter(4)}, endless=True), rows=16, watched=watched), test)


def test_a_fault_of_one_request_ends_it_and_no_other(monkeypatch):
    """Logits that are not finite, of prompts with a certain token."""
    decode, (token,) = Session.decode, small.tokenizer().encode("%")

    def poisoned(session: Session) -> Pass:
        ended, failed = decode(session)
        drawn = [*(request for request, *_ in session.running()), *(of for of, _ in ended)]
        hit = [request for request in drawn if token in request.prompt]
        for request in hit:
            session.cancel(request, lost=True)
        return Pass([pair for pair in ended if pair[0] not in hit], [*failed, *hit])

    async def test(engine: Engine) -> None:
        monkeypatch.setattr(Session, "decode", poisoned)
        options = Options(seed=1)
        whole = texts(await heard(engine.ask("1+2", options)))
        both = await asyncio.gather(
            heard(engine.ask("1+2", options)),
            heard(engine.ask("5%", Options(votes=3))),
            return_exceptions=True,
        )
        assert texts(both[0]) == whole
        assert isinstance(both[1], RuntimeError)
        assert "not finite" in str(both[1])
        assert texts(await heard(engine.ask("1+2", options))) == whole
        assert engine.counters()["malt_requests_failed_total"] == 1
        await until(quiet(engine))
        await engine.close()

    run(team(endless=True).engine(), test)


def test_a_pass_that_raises_ends_the_requests_in_it_and_not_the_engine(monkeypatch):
    decode, planted = Session.decode, []

    def failing(session: Session) -> Pass:
        warming = all(len(request.prompt) == 3 for request, *_ in session.running())
        if planted and not warming:
            raise planted.pop()
        return decode(session)

    monkeypatch.setattr(Session, "decode", failing)

    async def test(engine: Engine) -> None:
        whole = texts(await heard(engine.ask("1+2", Options(seed=1))))
        planted.append(MemoryError("planted"))
        with pytest.raises(RuntimeError, match="could not be answered: planted"):
            await heard(engine.ask("1+2", Options(seed=1)))
        assert texts(await heard(engine.ask("1+2", Options(seed=1)))) == whole
        await engine.close()

    run(team().engine(), test)


def test_an_engine_that_cannot_be_made_ready_says_why():
    """Under adapters that are not finite."""
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), adapter(1))

    async def test() -> None:
        engine = team({"generator": broken}).engine()
        await engine.close()
        with pytest.raises(RuntimeError, match=r"the engine has ended: .*not finite"):
            await heard(engine.ask("1+1", Options()))

    asyncio.run(test())


def test_to_close_finishes_what_runs_and_refuses_more():
    async def test(engine: Engine) -> None:
        running = asyncio.ensure_future(heard(engine.ask("1+1", Options())))
        await until(lambda: engine.counters()["malt_requests_running"] > 0)
        closing = asyncio.ensure_future(engine.close())
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await heard(engine.ask("1+1", Options()))
        await closing
        texts(await running)
        assert not engine.ready

    run(team().engine(), test)


def test_what_does_not_fit_the_cache_is_refused_before_any_work():
    asked = team()
    page = kv_cache.page_bytes(asked.sampler.config, asked.sampler.mesh, 64, np.dtype(np.float32))
    tight = replace(asked, sampler=replace(asked.sampler, kv_gib=4 * page / 2**30))

    async def test(engine: Engine) -> None:
        before = engine.counters()["malt_tokens_read_total"]
        with pytest.raises(ValueError, match=r"config.sample.kv_gib: .*raise it"):
            await heard(engine.chat("generator", USER, Options(max_tokens=300)))
        assert engine.counters()["malt_tokens_read_total"] == before
        texts(await heard(engine.chat("generator", USER, Options(max_tokens=20))))
        await engine.close()

    run(tight.engine(), test)
