"""A session pass by pass: requests sampled each in its own way, let go on their way, or failing."""

from collections.abc import Iterable
from dataclasses import replace

import jax.numpy as jnp
from sampling import requests, run, sampler

from malt_jax.sampler import ByRequest, Request, Sampler, Sampling, Session, Work, programs
from malt_jax.sampler.spec import few, prefill_sizes, row_sizes

WAYS = [Sampling(1.0), Sampling(0.0), Sampling(0.7, 5), Sampling(1.3, 0, 0.8)]


def session(small_sampler: Sampler, tick: float = 0.05) -> Session:
    return Session(small_sampler, [None], ByRequest(tick), Work())


def finished(opened: Session, asked: Iterable[Request]) -> dict[int, list[list[int]]]:
    left = iter(asked)
    done = opened.run(lambda: next(left, None))
    return {request.tag: [child.tokens for child in children] for request, children in done}


def test_requests_are_sampled_each_in_its_own_way():
    """Beside each other as a run in which all are sampled in that one way."""
    small_sampler, asked = sampler(), requests(8)
    ways = [replace(request, sampling=WAYS[i % 4]) for i, request in enumerate(asked)]
    mixed = finished(session(small_sampler), ways)
    for i, way in enumerate(WAYS):
        alike = run(small_sampler, asked[i::4], way)
        assert all([c.tokens for c in alike[tag]] == mixed[tag] for tag in alike)


def test_how_long_a_pass_takes_changes_no_token():
    small_sampler, asked = sampler(), requests(4)
    assert finished(session(small_sampler, tick=1e-9), asked) == finished(
        session(small_sampler, tick=60.0), asked
    )


def test_what_is_let_go_frees_its_pages_and_changes_no_other():
    small_sampler, asked = sampler(stop_ids=()), requests(6, children=2, new=40)
    whole = finished(session(small_sampler), asked)
    opened, left = session(small_sampler), iter(asked)
    begun = opened.admit(lambda: next(left, None))
    assert [start.request for start in begun] == asked
    assert opened.busy == 12
    opened.decode()
    for request in (asked[1], asked[4]):
        opened.cancel(request)
        opened.cancel(request)  # once is enough
    assert opened.busy == 8
    kept = finished(opened, [])
    assert kept == {tag: whole[tag] for tag in (0, 2, 3, 5)}
    assert opened.pages == 0


def test_what_waits_can_be_let_go():
    small_sampler, asked = sampler(stop_ids=()), requests(9, children=2)
    opened, left = session(small_sampler), iter(asked)
    opened.admit(lambda: next(left, None))
    for request in asked:
        opened.cancel(request)
    assert (opened.busy, opened.pages) == (0, 0)
    assert finished(opened, asked[7:]) == finished(session(small_sampler), asked[7:])


def test_requests_whose_logits_are_not_finite_are_named_and_their_pages_never_read_again():
    sick = sampler()
    params = {**sick.params, "embed": sick.params["embed"].at[5].set(jnp.nan)}
    opened, left = session(replace(sick, params=params)), iter(requests(2, children=1))
    opened.admit(lambda: next(left, None))
    ended, failed = opened.decode()
    assert (ended, {request.tag for request in failed}) == ([], {0, 1})
    assert opened.busy == 0
    assert opened.pages > 0


def test_the_tokens_of_a_row_can_be_read_while_it_decodes():
    small_sampler, asked = sampler(stop_ids=()), requests(2, children=1, new=60)
    opened, left = session(small_sampler, tick=60.0), iter(asked)
    opened.admit(lambda: next(left, None))
    read: dict[int, list[int]] = {}
    while opened.busy:
        ended, _ = opened.decode()
        for request, _, tokens in opened.running():
            assert tokens[: len(read.get(request.tag, []))] == read.get(request.tag, [])
            read[request.tag] = list(tokens)
        for request, (child,) in ended:
            assert child.tokens[: len(read[request.tag])] == read[request.tag]
    assert set(read) == {0, 1}


def test_few_widths_for_who_cannot_wait():
    assert few(row_sizes(12)) == [12]
    assert few(row_sizes(64)) == [16, 64]
    assert few(row_sizes(300)) == [16, 64, 256, 300]
    assert few(prefill_sizes(64, 16)) == [4, 16]


def test_more_requests_compile_no_more_programs():
    """1 to 30 at a time, of any length: a program a width of rows, tiles and pages."""
    compiled, small_sampler = programs.programs("cpu"), sampler(rows=64)
    opened = session(small_sampler)
    for n in (1, 2, 64):  # twice in the narrowest: a fresh pool is another argument to the compiler
        finished(opened, requests(n, children=1, longest=20))
    before = compiled.decode._cache_size(), compiled.prefill._cache_size()
    for n in (2, 5, 17, 30):
        finished(opened, requests(n, children=1, longest=40))
    assert (compiled.decode._cache_size(), compiled.prefill._cache_size()) == before
