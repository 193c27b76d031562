"""Advantages of siblings against figures worked out by hand, and what holds for all of them."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malt_jax.credit import advantages, propagate

VALUES = np.array([1, 1 / 3, 0], np.float32)
NAN = np.nan
RULES = {
    "siblings": advantages.siblings,
    "leave_one_out": advantages.leave_one_out,
    "mixed": advantages.mixed,
}


@pytest.mark.parametrize(
    ("rule", "want"),
    [
        (advantages.siblings, [5 / 9, -1 / 9, -4 / 9]),
        (advantages.leave_one_out, [5 / 6, -1 / 6, -2 / 3]),
        (advantages.mixed, [65 / 72, -13 / 72, -13 / 18]),
        (partial(advantages.mixed, mix=0, shaping=1), [10 / 9, -2 / 9, -8 / 9]),
        (partial(advantages.mixed, mix=1, shaping=2), [20 / 9, -4 / 9, -16 / 9]),
    ],
)
def test_worked_examples(rule, want):
    assert rule(VALUES) == pytest.approx(want, abs=1e-6)
    assert rule(VALUES).dtype == np.float32


def test_divided_by_the_siblings_deviation():
    """Population deviation sqrt((25 + 1 + 16) / 243); of 0/1 leaves at n = 3 it is a mere scale."""
    worth = advantages.normalised(advantages.siblings(VALUES), VALUES)
    assert worth == pytest.approx([1.3363, -0.2673, -1.0690], abs=1e-4)
    close, apart = np.float32([0.5, 0.5, 0.51]), np.float32([0, 0, 1])
    small, large = (advantages.normalised(advantages.siblings(x), x) for x in (close, apart))
    assert small == pytest.approx(large, rel=1e-4)
    assert large == pytest.approx([-1 / 2**0.5, -1 / 2**0.5, 2**0.5], rel=1e-5)


def test_over_all_rows_of_a_role():
    assert advantages.scaled(np.float32([1, 0, -1])) == pytest.approx(
        [1.2247, 0, -1.2247], abs=1e-4
    )
    want = [1.4142, 0, -1.4142, 0]
    assert advantages.standardised(np.float32([2, 1, 0, 1])) == pytest.approx(want, abs=1e-4)
    assert (advantages.scaled(np.zeros(3, np.float32)) == 0).all()


@pytest.mark.parametrize("rule", RULES.values())
def test_siblings_without_a_value_do_not_count(rule):
    with_missing = rule(np.float32([1, NAN, 1 / 3, 0, NAN]))
    assert np.isnan(with_missing[[1, 4]]).all()
    np.testing.assert_array_equal(with_missing[[0, 2, 3]], rule(VALUES))
    np.testing.assert_array_equal(rule(np.float32([NAN, 1])), [NAN, 0])  # an only child


@pytest.mark.parametrize("rule", RULES.values())
def test_equal_siblings_teach_nothing_however_their_mean_was_rounded(rule):
    """1/2 as the mean of (1/2, 2/3, 1/3) in another order each."""
    parts = np.float32([[1 / 2, 2 / 3, 1 / 3], [2 / 3, 1 / 3, 1 / 2], [1 / 3, 1 / 2, 2 / 3]])
    means = (parts[:, 0] + parts[:, 1] + parts[:, 2]) / np.float32(3)
    assert len(set(means.tolist())) > 1
    assert (rule(means) == 0).all()
    assert (advantages.normalised(rule(means), means) == 0).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, NAN]), min_size=1, max_size=6))
def test_they_add_up_to_nothing_and_order_as_values_do(values):
    values = np.float32(values)
    for rule in RULES.values():
        worth = rule(values)
        assert np.nansum(worth) == pytest.approx(0, abs=1e-5)
        known = ~np.isnan(values)
        order = np.argsort(values[known], kind="stable")
        assert (np.diff(worth[known][order]) >= 0).all()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_along_a_path_they_add_up_to_the_leaf_less_the_root(missing):
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 2, (20, 3, 2, 4)).astype(np.float32)
    rewards[rng.random(rewards.shape) < missing] = NAN
    first, second, leaves = (np.asarray(level) for level in propagate(rewards))
    total = (
        advantages.siblings(first)[:, :, None, None]
        + advantages.siblings(second)[..., None]
        + advantages.siblings(leaves)
    )
    root = np.nanmean(first, -1)[:, None, None, None]
    counted = ~np.isnan(leaves)
    np.testing.assert_allclose(total[counted], (leaves - root)[counted], atol=1e-5)
