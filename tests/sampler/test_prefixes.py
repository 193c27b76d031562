"""The prefix cache's bookkeeping, in pages of four tokens."""

import numpy as np
import pytest

from malt_jax.sampler.prefixes import Place, Prefixes


def test_literals():
    """A prompt, itself again, one that leaves it within a page, and one that goes on after it."""
    cache = Prefixes(10, 4)
    assert cache.place(0, [1, 2, 3, 4, 5, 6]) == Place([0, 1], 0, None)
    cache.settle()
    assert cache.place(0, [1, 2, 3, 4, 5, 6]) == Place([0, 1], 6, None)
    assert cache.place(0, [1, 2, 3, 4, 5]) == Place([0, 1], 5, None)
    assert cache.place(0, [1, 2, 3, 9, 9]) == Place([2, 3], 3, (0, 2))
    assert cache.place(0, [1, 2, 3, 4, 5, 6, 7, 8, 9]) == Place([0, 4, 5], 6, (1, 4))
    assert cache.place(0, []) == Place([], 0, None)


def test_another_adapter_shares_nothing():
    cache = Prefixes(10, 4)
    cache.place(0, [1, 2, 3, 4])
    cache.settle()
    assert cache.place(1, [1, 2, 3, 4]) == Place([1], 0, None)


def test_whole_pages_are_shared_at_once_and_parts_once_they_are_computed():
    """A copy of a page that the same pass computes would copy what was there before."""
    cache = Prefixes(10, 4)
    cache.place(0, [1, 2, 3, 4, 5])
    assert cache.place(0, [1, 2, 3, 4, 7]) == Place([0, 2], 4, None)
    assert cache.place(0, [1, 2, 9]) is None
    cache.settle()
    assert cache.place(0, [1, 2, 9]) == Place([3], 2, (0, 3))


def test_pages_in_use_are_not_evicted_and_the_oldest_goes_first():
    cache = Prefixes(3, 4)
    for first in (1, 2, 3):
        cache.place(0, [first])
        cache.settle()
    cache.place(0, [1])
    assert cache.place(0, [4]) == Place([1], 0, None)
    assert cache.shared(0, [2]) == 0
    assert cache.place(0, [5]) == Place([2], 0, None)
    assert cache.place(0, [6]) is None
    cache.settle()
    assert cache.place(0, [6]) == Place([0], 0, None)


def test_a_page_goes_only_after_those_that_follow_it():
    cache = Prefixes(3, 2)
    cache.place(0, [1, 1, 2, 2, 3, 3])
    cache.settle()
    assert cache.place(0, [9, 9]).pages == [2]
    assert cache.shared(0, [1, 1, 2, 2, 3, 3]) == 4


@pytest.mark.parametrize("seed", range(3))
def test_a_page_always_holds_what_its_readers_take_it_for(seed):
    """Random prompts over a small alphabet through a small cache, replayed on an array of tokens:
    whatever a place says is computed must be there, copies included."""
    rng, size, pages = np.random.default_rng(seed), 4, 12
    cache, held = Prefixes(pages, size), np.full((pages, size), -1)
    asked: list[tuple[list[int], Place]] = []

    def compute():
        for _, place in asked:
            if place.copy:
                held[place.copy[1]] = held[place.copy[0]]
        for prompt, place in asked:
            for at in range(place.start, len(prompt)):
                held[place.pages[at // size], at % size] = prompt[at]
        for prompt, place in asked:
            read = [int(held[place.pages[at // size], at % size]) for at in range(len(prompt))]
            assert read == prompt
        asked.clear()
        cache.settle()

    for _ in range(500):
        prompt = rng.integers(0, 2, rng.integers(0, 30)).tolist()
        known = cache.shared(0, prompt)
        place = cache.place(0, prompt)
        if place is None:
            compute()
            known = cache.shared(0, prompt)
            place = cache.place(0, prompt)
        assert place is not None
        assert place.start == known
        asked.append((prompt, place))
    compute()


def test_a_prompt_shares_as_much_as_any_before_it_and_of_equals_with_the_first():
    """Whatever the pages: a pool that never fills, against all earlier prompts one by one."""
    rng, size = np.random.default_rng(0), 4
    cache, earlier = Prefixes(4000, size), list[list[int]]()
    for _ in range(300):
        prompt = rng.integers(0, 3, rng.integers(1, 20)).tolist()
        most = max((common(prompt, other) for other in earlier), default=0)
        assert cache.shared(0, prompt) == most
        place = cache.place(0, np.array(prompt, np.int32))
        assert place is not None
        assert place.start == most
        cache.settle()
        earlier.append(prompt)
    cache = Prefixes(10, size)
    for prompt in ([1, 2, 3], [1, 2, 4], [1, 5]):
        cache.place(0, prompt)
        cache.settle()
    assert cache.place(0, [1, 2, 9]) == Place([3], 2, (0, 3))


def common(a: list[int], b: list[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(min(a, b, key=len))
    )


def test_pages_that_went_leave_no_trace():
    """A page's row is taken again, and its tokens are not met any more."""
    cache = Prefixes(2, 2)
    for first in range(50):
        place = cache.place(0, [first, 1])
        assert place is not None
        assert place.start == 0
        cache.settle()
    assert [cache.shared(0, [first, 1]) for first in range(50)] == [0] * 48 + [2, 2]
