"""An engine whose queue is full, whose adapters change, whose logits are not finite, that ends."""

import asyncio

import jax
import jax.numpy as jnp
import pytest
from asking import adapter, heard, quiet, run, team, texts, until

from malt_jax.serve.backend import Busy, Message, Options
from malt_jax.serve.engine import Engine
from malt_jax.serve.watch import Watched

LONG = Options(votes=1, max_tokens=400)
USER = [Message("user", "1+2")]


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

    run(team().engine(queue=2), test)


def test_adapters_that_come_are_taken_up_and_nothing_under_way_is_lost(tmp_path):
    """What is under way ends under the adapters it began with; what comes later begins with the
    others; a file that cannot be read changes nothing."""
    file, loads = tmp_path / "adapter", []

    def load() -> dict:
        loads.append(file.read_text())
        if loads[-1] == "broken":
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
        file.write_text("broken one")
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

    run(Engine(team({"generator": adapter(4)}), rows=16, watched=watched), test)


def test_a_fault_of_one_role_ends_its_requests_and_no_other():
    """Logits that are not finite, under one adapter."""
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), adapter(1))

    async def test(engine: Engine) -> None:
        greedy = Options(temperature=0.0)
        whole = texts(await heard(engine.chat("refiner", USER, greedy)))
        both = await asyncio.gather(
            heard(engine.chat("refiner", USER, greedy)),
            heard(engine.ask("1+1", Options())),
            return_exceptions=True,
        )
        assert texts(both[0]) == whole
        assert isinstance(both[1], RuntimeError)
        assert "not finite" in str(both[1])
        assert texts(await heard(engine.chat("refiner", USER, greedy))) == whole
        assert engine.counters()["malt_requests_failed_total"] == 1
        await engine.close()

    run(team({"generator": broken}).engine(), test)


def test_to_close_finishes_what_runs_and_refuses_more():
    async def test(engine: Engine) -> None:
        running = asyncio.ensure_future(heard(engine.ask("1+1", Options())))
        await until(lambda: engine.counters()["malt_rows_busy"] > 0)
        closing = asyncio.ensure_future(engine.close())
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await heard(engine.ask("1+1", Options()))
        await closing
        texts(await running)
        assert not engine.ready

    run(team().engine(), test)
