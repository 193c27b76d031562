"""The sampler: every row is the model's own, whatever runs beside it, and no work is done twice."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
import pytest
import small
from sampling import STOP, adapter, requests, run, sampler

from malt_jax.models import kv_cache
from malt_jax.models.lora import Adapter
from malt_jax.rollout.keys import node_keys
from malt_jax.sampler import (
    Completion,
    Request,
    Sampler,
    Sampling,
    Work,
    programs,
    schedule,
    session,
    spec,
)
from malt_jax.sampler.widths import Widths

CPU = programs.programs("cpu")


def full_pass(
    small_sampler: Sampler, tokens: list[int], adapter: Adapter | None = None
) -> np.ndarray:
    """Log-probabilities [T, V] of one uncached forward pass."""
    row = np.full(small_sampler.config.context, -1)
    row[: len(tokens)] = tokens
    return np.asarray(
        small.full_pass(small_sampler.config, small_sampler.params, row, adapter)[: len(tokens)]
    )


def same(a: Sequence[Completion], b: Sequence[Completion]) -> bool:
    """Bit by bit."""
    return all(
        x.tokens == y.tokens
        and (x.logps == y.logps).all()
        and (x.behaviour == y.behaviour).all()
        and x.stopped == y.stopped
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("rows", [1, 12, pytest.param(100, marks=pytest.mark.slow)])
def test_tokens_and_logps_are_the_models_own(rows):
    """Greedy tokens and their log-probabilities equal those of one full forward pass, over pages of
    a prompt, over a page's end in a completion, and with a prompt of one token."""
    small_sampler = sampler(rows, stop_ids=())
    asked = requests(4, new=70, longest=200)
    asked.append(Request([5], asked[0].keys, 30, tag=4))
    got = run(small_sampler, asked, Sampling(0.0))
    for request in asked:
        first = got[request.tag][0]
        assert [c.tokens for c in got[request.tag]] == [first.tokens] * 3
        logps = full_pass(small_sampler, [*request.prompt, *first.tokens])
        start, n = len(request.prompt) - 1, request.max_new_tokens
        assert first.tokens == np.argmax(logps[start:-1], -1).tolist()
        expected = logps[np.arange(start, start + n), first.tokens]
        np.testing.assert_allclose(first.logps, expected, atol=5e-5)
        assert not first.behaviour.any()
        assert not first.stopped


def test_behaviour_is_the_sampled_distribution_of_every_token():
    """Over pages and passes: the temperature and the cut of top-k, from one full forward pass."""
    engine, hot = sampler(stop_ids=()), Sampling(0.7, top_k=5)
    asked = requests(3, new=40)
    drawn = run(engine, asked, hot)
    for request in asked:
        completion = drawn[request.tag][1]
        start = len(request.prompt) - 1
        logps = full_pass(engine, [*request.prompt, *completion.tokens])[start:-1]
        kept = np.where(logps < np.sort(logps)[:, -5:-4], -np.inf, logps / 0.7)
        sampled = np.asarray(jax.nn.log_softmax(kept))
        places = np.arange(40), completion.tokens
        np.testing.assert_allclose(completion.behaviour, sampled[places], atol=1e-4)
        np.testing.assert_allclose(completion.logps, logps[places], atol=5e-5)


def test_a_row_depends_on_nothing_but_itself():
    """Bit-equal in reversed order, alone, and after other prompts filled the prefix cache (a shared
    random state, padding that leaks or a page read by the wrong row would change bits)."""
    asked = requests(12)
    whole = run(sampler(), asked)
    reverse = run(sampler(), asked[::-1])
    for i, request in enumerate(asked):
        assert same(whole[i], reverse[i])
        assert same(whole[i], run(sampler(), [request])[i])


def test_other_row_counts_change_no_bit():
    """Weights kept as [in, out] failed this: XLA then sums in another order for few rows. So did
    passes of a single row."""
    asked = requests(6)
    wide = run(sampler(rows=70), asked)
    for rows in (1, 12):
        narrow = run(sampler(rows), asked)
        assert all(same(narrow[i], wide[i]) for i in range(6))


def test_a_pass_narrows_without_changing_a_bit():
    """100 rows run in ever narrower passes as they end, each child alone in the narrowest: all
    that clocks may choose of."""
    asked = [replace(r, max_new_tokens=10 + 2 * i) for i, r in enumerate(requests(40, longest=40))]
    widths: set[int] = set()
    small_sampler, plans = sampler(rows=100), session.schedule.plan

    def watch(shards, rows, *rest):
        widths.add(rows)
        return plans(shards, rows, *rest)

    def narrowest(_, ladder, least, steps):
        return next(width for width in ladder if width >= least)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.schedule, "plan", watch)
        patch.setattr(Widths, "choose", narrowest)
        patch.setattr(session, "pause", lambda *_: 6)
        whole = run(small_sampler, asked)
    assert widths == set(spec.row_sizes(100)) == {16, 24, 32, 48, 64, 96, 100}
    for i in (0, 20, 39):
        assert same(whole[i], run(small_sampler, [asked[i]])[i])


def test_children_differ_and_keys_decide():
    asked = requests()
    children = run(sampler(), asked)[0]
    assert len({tuple(c.tokens) for c in children}) == 3
    swapped = replace(asked[0], keys=asked[0].keys[::-1])
    assert same(run(sampler(), [swapped])[0], children[::-1])


def test_more_children_than_read_a_page_together():
    """Eight children in groups of three: the same as eight requests of one."""
    asked = requests(2, children=8)
    whole = run(sampler(), asked)
    for request in asked:
        ones = [replace(request, keys=key[None], tag=c) for c, key in enumerate(request.keys)]
        apart = run(sampler(), ones)
        assert same(whole[request.tag], [apart[c][0] for c in range(8)])


def test_stop_ids_end_a_row_and_count_as_its_last_token():
    completions = [c for row in run(sampler(), requests(20)).values() for c in row]
    stopped = [c for c in completions if c.stopped]
    assert stopped
    assert len(stopped) < len(completions)
    for completion in completions:
        assert (STOP in completion.tokens) == completion.stopped
        assert completion.tokens.count(STOP) == int(completion.stopped)
        assert len(completion.tokens) == 24 or completion.tokens[-1] == STOP
        assert len(completion.logps) == len(completion.tokens)
        np.testing.assert_array_equal(completion.behaviour, completion.logps)  # temperature 1


def test_mixed_rows_each_under_their_own_adapter():
    """Rows of three adapters (of other ranks and targets) and of none decode side by side, and each
    equals the model under its adapter alone."""
    small_sampler = sampler(stop_ids=())
    adapters = [
        None,
        adapter(small_sampler, 1),
        adapter(small_sampler, 2, rank=3, targets=("q", "down")),
        adapter(small_sampler, 3),
    ]
    asked = [replace(r, adapter=i % 4) for i, r in enumerate(requests(8))]
    got = run(small_sampler, asked, Sampling(0.0), adapters)
    for request in asked:
        first = got[request.tag][0]
        logps = full_pass(
            small_sampler, [*request.prompt, *first.tokens], adapters[request.adapter]
        )
        start = len(request.prompt) - 1
        expected = logps[np.arange(start, start + 24), first.tokens]
        np.testing.assert_allclose(first.logps, expected, atol=1e-4)


def test_one_prompt_under_two_adapters_shares_no_keys():
    """The prefix cache knows adapters apart: their keys and values differ."""
    small_sampler = sampler()
    request, adapters = requests(1)[0], [adapter(small_sampler, 1), adapter(small_sampler, 2)]
    pair = [replace(request, adapter=i, tag=i) for i in (0, 1)]
    both = run(small_sampler, pair, adapters=adapters)
    for i in (0, 1):
        apart = run(small_sampler, [replace(request, tag=0)], adapters=adapters[i : i + 1])[0]
        assert [c.tokens for c in both[i]] == [c.tokens for c in apart]
    assert both[0][0].tokens != both[1][0].tokens


def test_rows_without_an_adapter_are_the_base_model_bit_by_bit():
    small_sampler, asked = sampler(), requests(4)
    plain = run(small_sampler, asked)
    beside = [*asked, replace(requests(5)[4], adapter=1)]
    mixed = run(small_sampler, beside, adapters=[None, adapter(small_sampler, 1)])
    assert all([c.tokens for c in plain[i]] == [c.tokens for c in mixed[i]] for i in range(4))


def test_swapping_adapters_compiles_nothing():
    """Adapters are arguments of the compiled program: one that was closed over would be frozen."""
    small_sampler, asked = sampler(), requests(2)
    results = [run(small_sampler, asked, adapters=[adapter(small_sampler, 0)])]
    compiled = CPU.decode._cache_size(), CPU.prefill._cache_size()
    results += [
        run(small_sampler, asked, adapters=[adapter(small_sampler, seed)]) for seed in (1, 2)
    ]
    assert (CPU.decode._cache_size(), CPU.prefill._cache_size()) == compiled
    assert len({tuple(r[0][0].tokens) for r in results}) == 3


def test_programs_compiled_are_no_more_than_the_buckets():
    """Prompts of 1 to 300 tokens, 1 to 5 children, 2 to 60 new tokens: one program a width of rows,
    tiles or pages, and none for a length."""
    small_sampler, rng = sampler(rows=100), np.random.default_rng(1)
    before = CPU.decode._cache_size(), CPU.prefill._cache_size()
    asked = []
    for i in range(60):
        children = int(rng.integers(1, 6))
        keys = node_keys(0, "b", str(i), [(child,) for child in range(children)])
        prompt = rng.integers(4, 100, rng.integers(1, 300)).tolist()
        asked.append(Request(prompt, keys, int(rng.integers(2, 60)), tag=i))
    work = Work()
    run(small_sampler, asked, work=work)
    pools = {schedule.sizes(pages, 1, 10**6)[0] for pages in range(1, work.peak_pages + 1)}
    rows, tiles = spec.row_sizes(100), spec.prefill_sizes(100, 16)
    assert CPU.decode._cache_size() - before[0] <= len(rows) * len(pools)
    assert CPU.prefill._cache_size() - before[1] <= len(tiles)


def test_what_a_result_asks_for_runs_beside_the_others():
    """A request made of the first result starts while others still decode: rows that wait for a
    level to end would leave it for last."""
    first, *others = requests(4, children=1, new=20)
    slow = [replace(r, max_new_tokens=200) for r in others]
    stack, order = [*slow, first], []
    small_sampler = sampler(stop_ids=())
    for request, _ in small_sampler.run(
        lambda: stack.pop() if stack else None, sampling=Sampling(1.0)
    ):
        order.append(request.tag)
        if request.tag == 0:
            stack.append(replace(first, tag="next"))
    assert order[:2] == [0, "next"]
    assert len(order) == 5


def test_free_rows_are_refilled():
    """30 children on 12 rows, a third of them long: by batches of 12 the long ones cost every
    batch their length."""
    lengths = [64 if i % 3 == 0 else 8 for i in range(30)]
    asked = [
        replace(r, max_new_tokens=n)
        for r, n in zip(requests(30, children=1, longest=20), lengths, strict=True)
    ]
    work = Work()
    run(sampler(stop_ids=()), asked, work=work)
    assert work.decoded == sum(lengths)
    assert work.steps < 2 * 64  # three batches of 12 would take 3 x 64
    assert work.occupancy == work.decoded / work.decode_slots > 0.5


def test_a_prompt_beyond_the_context_is_refused():
    long = replace(requests(1)[0], prompt=[5] * 500)
    with pytest.raises(ValueError, match=r"500 tokens and 24 new ones.*context of 512"):
        run(sampler(), [long])


def test_memory_that_the_file_cache_holds_counts_as_there(tmp_path):
    """Counting only what is free, a run after much reading decoded one group at a time."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  24000 kB\nMemFree:  100 kB\nMemAvailable:  20000 kB\n")
    assert spec.available_bytes(meminfo) == 20000 * 1024
    assert spec.available_bytes(tmp_path / "none") > 2**20


def test_a_budget_too_small_is_refused_and_a_tight_one_is_enough():
    """One group at a time still runs to its end, with the same tokens; its pages never exceed the
    budget."""
    model, asked = sampler(), requests(6, new=40)
    page = kv_cache.page_bytes(model.config, model.mesh, 64, np.dtype(np.float32)) / 2**30
    with pytest.raises(ValueError, match=r"config.sample.kv_gib: .* raise it"):
        run(sampler(kv_gib=4 * page), asked)
    work = Work()
    tight = run(sampler(kv_gib=12 * page), asked, work=work)
    free = run(model, asked)
    assert work.peak_pages <= 9
    assert all(same(tight[i], free[i]) for i in range(6))


def test_what_compiling_has_freed_is_given_back(monkeypatch: pytest.MonkeyPatch):
    """Once a program, not at every call of it: the allocator would keep 300 MB of each."""
    given: list[int] = []
    monkeypatch.setattr(programs, "_malloc_trim", given.append)
    programs.programs("cpu")
    fresh = jax.jit(lambda x: x + 1)
    fresh(0).block_until_ready()
    count = len(given)
    assert count > 0
    fresh(1).block_until_ready()
    assert len(given) == count
