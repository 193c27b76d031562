"""Values and labels against exact arithmetic: a plain recursion over fractions."""

import itertools
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from malt_jax import credit

HALF = Fraction(1, 2)
# Few shapes, because each compiles once: depths 1 to 4, branching equal and not.
SHAPES = st.sampled_from([(3, 1), (2, 4), (4, 2, 3), (2, 3, 3, 3), (3, 1, 4, 2), (2, 2, 3, 1, 2)])


@st.composite
def trees(draw):
    shape = draw(SHAPES)
    bits = hnp.arrays(bool, shape)
    return draw(bits).astype(np.float32), draw(bits)


def exact(rewards, mask):
    """The value of one node, None if no leaf below it is present."""
    if rewards.ndim == 0:
        return Fraction(int(rewards)) if mask else None
    children = [exact(r, m) for r, m in zip(rewards, mask, strict=True)]
    present = [child for child in children if child is not None]
    return sum(present) / len(present) if present else None


def exact_values(rewards, mask):
    """Per depth an array of objects: Fractions, and None for missing nodes."""
    depths = []
    for depth in range(1, rewards.ndim):
        shape = rewards.shape[: depth + 1]
        nodes = [exact(rewards[i], mask[i]) for i in np.ndindex(shape)]
        depths.append(np.array([*nodes, None], object)[:-1].reshape(shape))
    return depths


def assert_exact(rewards, mask, threshold=HALF):
    values = credit.propagate(rewards, mask)
    labels = credit.label(values, float(threshold))
    for value, positive, want in zip(values, labels, exact_values(rewards, mask), strict=True):
        want_value = [np.nan if v is None else float(v) for v in want.ravel()]
        np.testing.assert_allclose(value.ravel(), want_value, rtol=3e-7)
        want_label = [v is not None and v > threshold for v in want.ravel()]
        np.testing.assert_array_equal(positive.ravel(), want_label)


def test_values_and_labels_of_one_tree_by_hand():
    """One question of the paper's n = 3: solutions worth 5/9, 1/3 and 1."""
    rewards = np.array(
        [
            [
                [[1, 1, 0], [1, 0, 0], [1, 1, 0]],
                [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
                [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
            ]
        ],
        np.float32,
    )
    generators, verifiers, refiners = credit.propagate(rewards)
    np.testing.assert_allclose(generators, [[5 / 9, 1 / 3, 1]], rtol=1e-6)
    want = [[[2 / 3, 1 / 3, 2 / 3], [1 / 3, 1 / 3, 1 / 3], [1.0, 1.0, 1.0]]]
    np.testing.assert_allclose(verifiers, want, rtol=1e-6)
    np.testing.assert_array_equal(refiners, rewards)
    g_labels, v_labels, r_labels = credit.label((generators, verifiers, refiners))
    assert g_labels.tolist() == [[True, False, True]]
    assert v_labels.tolist() == [[[True, False, True], [False] * 3, [True] * 3]]
    np.testing.assert_array_equal(r_labels, rewards == 1)


def test_a_missing_leaf_makes_a_mean_of_means_not_of_leaves():
    rewards = np.array([[[1, 0, 0], [1, 1, 1]]], np.float32)
    mask = np.array([[[True, True, True], [True, False, False]]])
    (values, _) = credit.propagate(rewards[:, None], mask[:, None])[:2]
    assert values.tolist() == [[pytest.approx((1 / 3 + 1) / 2)]]  # over leaves it would be 2/4


def test_a_node_without_leaves_is_nan_negative_and_left_out():
    rewards = np.array([[[[1, 1], [1, 1]], [[1, 0], [1, 1]]]], np.float32)
    mask = np.array([[[[False, False]] * 2, [[False, False], [True, True]]]])
    generators, verifiers, leaves = credit.propagate(rewards, mask)
    np.testing.assert_array_equal(generators, [[np.nan, 1]])
    np.testing.assert_array_equal(verifiers, [[[np.nan, np.nan], [np.nan, 1]]])
    np.testing.assert_array_equal(np.isnan(leaves), ~mask)
    assert credit.label(generators).tolist() == [[False, True]]
    assert credit.label(generators, -1.0).tolist() == [[False, True]]


def test_a_nan_reward_is_a_missing_leaf():
    rewards = np.array([[[1.0, np.nan], [np.nan, np.nan]]], np.float32)
    np.testing.assert_array_equal(credit.propagate(rewards)[0], [[1, np.nan]])


@settings(max_examples=80)
@given(trees())
def test_equals_exact_recursion(tree):
    assert_exact(*tree)


@settings(max_examples=20)
@given(trees(), st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(2, 3), Fraction(1)]))
def test_strict_at_any_threshold(tree, threshold):
    rewards, mask = tree
    assert_exact(rewards, mask, threshold)


def test_every_tree_of_branching_two():
    rewards = np.array(list(itertools.product([0, 1], repeat=8)), np.float32).reshape(-1, 2, 2, 2)
    assert_exact(rewards, np.ones(rewards.shape, bool))


def test_sample_of_trees_of_branching_three():
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 2, (2000, 3, 3, 3)).astype(np.float32)
    assert_exact(rewards, np.ones(rewards.shape, bool))
    assert_exact(rewards, rng.random(rewards.shape) < 0.7)


def test_every_generator_of_branching_three_with_missing_leaves():
    """Means such as (1/2 + 2/3 + 1/3) / 3 are one half exactly, and one ulp more in float32."""
    rows = [
        [1.0] * c + [0.0] * (k - c) + [np.nan] * (3 - k) for k in range(4) for c in range(k + 1)
    ]
    rewards = np.array(list(itertools.product(rows, repeat=3)), np.float32)[:, None]
    mask = ~np.isnan(rewards)
    halves = exact_values(np.nan_to_num(rewards), mask)[0] == HALF
    assert halves.sum() > 100
    assert_exact(np.nan_to_num(rewards), mask)


def test_every_generator_of_branching_six():
    """All 7^6 orders of six verifiers' counts; without a tolerance 214 labels come out wrong."""
    counts = np.array(list(itertools.product(range(7), repeat=6)))
    rewards = (np.arange(6) < counts[..., None])[:, None].astype(np.float32)
    labels = credit.label(credit.propagate(rewards)[0])
    np.testing.assert_array_equal(labels[:, 0], 2 * counts.sum(axis=1) > 36)


def test_tolerance_does_not_blur_neighbouring_values():
    """41/81 is the value next above a half for nine children that have nine each."""
    rewards = np.zeros((2, 1, 81), np.float32)
    rewards[0, 0, :41] = rewards[1, 0, :40] = 1
    labels = credit.label(credit.propagate(rewards.reshape(2, 1, 9, 9))[0])
    assert labels.tolist() == [[True], [False]]


@settings(max_examples=20)
@given(trees(), st.randoms(use_true_random=False))
def test_questions_do_not_see_each_other(tree, random):
    rewards, mask = tree
    order = random.sample(range(len(rewards)), len(rewards))
    want = [value[np.array(order)] for value in credit.propagate(rewards, mask)]
    for got, value in zip(credit.propagate(rewards[order], mask[order]), want, strict=True):
        np.testing.assert_array_equal(got, value)


@settings(max_examples=15)
@given(trees())
def test_jit_equals_no_jit(tree):
    compiled = credit.propagate(*tree)
    with jax.disable_jit():
        plain = credit.propagate(*tree)
        plain_labels = credit.label(plain)
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-7)
    for a, b in zip(credit.label(compiled), plain_labels, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=30)
@given(trees(), st.integers(0, 2**31 - 1))
def test_shuffle_keeps_the_multiset_and_the_missing(tree, seed):
    _, mask = tree
    rewards = np.arange(mask.size, dtype=np.float32).reshape(mask.shape)
    shuffled = np.asarray(credit.shuffle(rewards, jax.random.key(seed), mask))
    assert sorted(shuffled[mask]) == sorted(rewards[mask])
    np.testing.assert_array_equal(shuffled[~mask], rewards[~mask])


def test_shuffle_is_uniform_over_present_leaves_of_all_questions():
    """Each of four present leaves, in three questions, gets each reward a quarter of the time."""
    rewards = np.arange(6, dtype=np.float32).reshape(3, 2)
    mask = np.array([[True, False], [True, True], [False, True]])
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda key: credit.shuffle(rewards, key, mask))(keys))[:, mask]
    for leaf in drawn.T:
        counts = [np.sum(leaf == reward) for reward in rewards[mask]]
        assert sum(counts) == 4000
        np.testing.assert_allclose(counts, 1000, atol=5 * np.sqrt(750))  # 5 standard deviations


def test_shuffle_depends_on_the_key_alone():
    rewards = np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3)
    once = credit.shuffle(rewards, jax.random.key(1))
    np.testing.assert_array_equal(once, credit.shuffle(rewards, jax.random.key(1)))
    assert not np.array_equal(once, credit.shuffle(rewards, jax.random.key(2)))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        credit.propagate(np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=r"mask \(2, 1\) must have the shape of rewards \(2, 3\)"):
        credit.propagate(np.zeros((2, 3), np.float32), np.ones((2, 1), bool))
