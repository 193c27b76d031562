"""Which widths are compiled, and when a pass ends: with figures worked out by hand."""

import math
from dataclasses import replace

import pytest
from sampling import requests, run, sampler

from malt_jax.sampler import programs
from malt_jax.sampler.widths import Widths, pause

LADDER = (16, 32, 64)


def ran(*passes: tuple[int, int, float]) -> Widths:
    widths = Widths()
    for width, steps, seconds in passes:
        widths.ran(width, steps, seconds)
    return widths


def test_the_first_width_is_the_narrowest_that_is_enough():
    assert [Widths().choose(LADDER, least, 5) for least in (1, 16, 17, 64)] == [16, 16, 32, 64]


def test_a_width_is_compiled_once_it_saves_more_than_compiling_takes():
    """64 rows take 0.04 s a step, so that 16 save 0.03 s: 3 s of compiling are 100 steps."""
    widths = ran((64, 10, 3.0), (64, 10, 0.4))
    assert widths.choose(LADDER, 10, 100) == 64
    assert widths.choose(LADDER, 10, 101) == 16
    assert widths.choose(LADDER, 20, 150) == 64  # 32 save 0.02 s a step
    assert widths.choose(LADDER, 20, 151) == 32


def test_what_was_lost_counts():
    """After 60 steps at 64 that 16 would have done, 41 to come are enough."""
    widths = ran((64, 10, 3.0), (64, 10, 0.4))
    widths.lose(64, LADDER, 10, 60)
    assert widths.lost == {16: 60 * 0.03}
    assert widths.choose(LADDER, 10, 39) == 64
    assert widths.choose(LADDER, 10, 41) == 16
    assert widths.choose(LADDER, 20, 41) == 64  # another width's loss


def test_a_compiled_width_is_run_and_a_step_costs_what_its_fastest_did():
    widths = ran((64, 10, 3.0), (16, 10, 2.0), (64, 10, 0.9), (64, 10, 0.4), (64, 10, 0.5))
    assert widths.choose(LADDER, 10, 1) == 16
    assert widths.choose(LADDER, 20, 1) == 64
    assert widths.compiling == 2.0
    assert widths.seconds == {64: 0.04, 16: 0.0}


def test_no_clock_decides_where_all_hosts_run_the_same_programs():
    widths = ran((64, 10, 3.0), (64, 10, 0.4))
    assert widths.choose(LADDER, 10, math.inf) == 16


def test_a_pass_ends_when_waiting_costs_what_the_host_does():
    """64 rows of 32 tokens, 1 ms a step: with 0.25 ms of the host between passes 8 free rows,
    64 * sqrt(2 * 0.25 / 32)."""
    assert pause(64, 0.00025, 0.001, 32) == 8
    assert pause(64, 1.0, 0.001, 32) == 16  # a quarter
    assert pause(64, 0.0, 0.001, 32) == 1
    assert pause(64, 1.0, 0.0, 32) == pause(64, 1.0, 0.001, 0) == 4  # not known yet: a sixteenth


def test_last_rows_compile_nothing_that_does_not_pay(monkeypatch: pytest.MonkeyPatch):
    """Where a program takes a second to compile and a millisecond a step, a run's short tail stays
    in the one that is there."""
    costs = programs.programs("cpu").costs
    costs.clear()
    noted = Widths.ran

    def ran(widths: Widths, width: int, steps: int, seconds: float) -> None:
        noted(widths, width, steps, 0.001 * steps if width in widths.seconds else 1.0)

    monkeypatch.setattr(Widths, "ran", ran)
    asked = [replace(r, max_new_tokens=10 + i) for i, r in enumerate(requests(40, longest=40))]
    run(sampler(rows=90), asked)
    decode = [widths for key, widths in costs.items() if key[0] != "prefill"]
    assert [set(widths.seconds) for widths in decode] == [{90}]
