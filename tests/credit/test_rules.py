"""Values over parent indices: ragged trees, missing leaves, any order of the nodes."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malt_jax import credit
from malt_jax.config.credit import CreditSettings
from malt_jax.credit.rules import depths, mean_of_children

SIZE = 16  # of every forest below, so that one program serves all examples


def exact(scores: list[float | None], parents: list[int]) -> list[Fraction | None]:
    """The definition, word by word."""

    def value(node: int) -> Fraction | None:
        children = [child for child, parent in enumerate(parents) if parent == node]
        if not children:
            return None if scores[node] is None else Fraction(scores[node])
        known = [v for v in map(value, children) if v is not None]
        return sum(known) / len(known) if known else None

    return [value(node) for node in range(len(parents))]


@st.composite
def forests(draw):
    """Scores and parents of a forest whose nodes stand in any order."""
    before = [draw(st.integers(-1, i - 1)) for i in range(SIZE)]
    place = draw(st.permutations(range(SIZE)))
    parents = [-1] * SIZE
    for i, parent in enumerate(before):
        parents[place[i]] = -1 if parent < 0 else place[parent]
    scores = draw(st.lists(st.sampled_from([None, 0.0, 0.25, 1.0]), min_size=SIZE, max_size=SIZE))
    return scores, parents


def as_arrays(scores, parents):
    return jnp.array(np.array(scores, np.float32)), jnp.array(parents, jnp.int32)


def test_the_worked_example():
    """A root with a (leaves 1 and 0), b (a leaf 1) and c (a leaf without a verdict)."""
    parents = [-1, 0, 0, 0, 1, 1, 2, 3]
    scores = [None, None, None, None, 1.0, 0.0, 1.0, None]
    values = mean_of_children(*as_arrays(scores, parents))
    np.testing.assert_array_equal(values, [0.75, 0.5, 1.0, np.nan, 1.0, 0.0, 1.0, np.nan])
    assert depths(jnp.array(parents)).tolist() == [0, 1, 1, 1, 2, 2, 2, 2]


def test_an_inner_nodes_own_score_is_not_its_value():
    """The generator's answer is graded, and worth what its refiners make of it."""
    values = mean_of_children(*as_arrays([1.0, 0.0], [-1, 0]))
    assert values.tolist() == [0.0, 0.0]


@settings(max_examples=150)
@given(forests())
def test_equals_the_recursive_definition(forest):
    scores, parents = forest
    expected = exact(scores, parents)
    values = mean_of_children(*as_arrays(scores, parents))
    floats = [np.nan if v is None else float(v) for v in expected]
    np.testing.assert_allclose(values, floats, rtol=3e-7)
    positive = credit.label(values)
    assert positive.tolist() == [v is not None and v > Fraction(1, 2) for v in expected]


@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 4), (5,), (2, 3, 1, 2)])
def test_equals_the_dense_rule_on_dense_trees_bit_by_bit(shape):
    rng = np.random.default_rng(len(shape))
    rewards = rng.choice([0, 0.5, 1, np.nan], (40, *shape), p=[0.4, 0.1, 0.4, 0.1])
    dense = credit.propagate(jnp.array(rewards, jnp.float32))
    sizes = [value.size for value in dense]
    starts = np.cumsum([0, *sizes])
    parents, scores = np.full(starts[-1], -1), np.full(starts[-1], np.nan)
    for depth in range(1, len(shape)):
        children = np.arange(sizes[depth])
        parents[starts[depth] + children] = starts[depth - 1] + children // shape[depth]
    scores[starts[-2] :] = rewards.ravel()
    values = mean_of_children(*as_arrays(scores, parents))
    flat = np.concatenate([np.ravel(value) for value in dense])
    np.testing.assert_array_equal(values, flat)
    np.testing.assert_array_equal(credit.label(values), credit.label(jnp.array(flat)))


def test_indices_in_a_circle_end():
    """Nothing on disk may hang a run; `credit.assign` refuses such rows by their question."""
    assert depths(jnp.array([1, 0, -1])).shape == (3,)
    rows = [
        {"question_id": "q", "node": 0, "parent": 1, "score": 1.0},
        {"question_id": "q", "node": 1, "parent": 0, "score": 1.0},
    ]
    with pytest.raises(ValueError, match=r"question 'q': node 0 has no parent 1 before it"):
        credit.assign(rows, CreditSettings(0.5, False, 3, 2), 0)


def test_a_leafs_share_in_the_root():
    """By the derivative, which is a half for each step of branching two."""
    parents = jnp.array([-1, 0, 0, 1, 1, 2], jnp.int32)
    scores = jnp.array([0, 0, 0, 1, 0, 1], jnp.float32)
    share = jax.jacfwd(lambda scores: mean_of_children(scores, parents)[0])(scores)
    assert share.tolist() == [0, 0, 0, 0.25, 0.25, 0.5]
