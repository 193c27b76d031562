"""The benchmark's lower bound of time, with figures worked out by hand."""

import pytest
from benchmarks.roofline import Machine, Shape, ideal_seconds, ideal_training_seconds

from malt_jax.models.config import LlamaConfig, Rope

SHAPE = Shape(body=10, head=5, attention_flops=3, kv_bytes=7)
# Prompts share [1, 2]: 3 positions of the first (attending to 1 + 2 + 3) and 2 of the second
# (3 + 4), so 5 * 20 + 13 * 3 FLOPs, and the head twice, 2 * 10: 159 FLOPs.
# Fed back are 2 and 1 tokens of the first parent, 0 of the second. They attend to
# (3+1) + (3+2) + (3+1) positions: 3 * 30 + 13 * 3 = 129 FLOPs.
# Read are, at 1.5 rows a step, 2 steps' weights, 2 * 60 bytes; the first prompt in 2 steps, 6
# positions; own tokens 1 + 2 + 1: 120 + 10 * 7 = 190 bytes.
PARENTS = [([1, 2, 3], [[4, 4, 4], [5, 5]]), ([1, 2, 8, 9], [[6]])]


@pytest.mark.parametrize(
    ("machine", "seconds"),
    [
        (Machine(flops=100.0, bandwidth=1000.0), 1.59 + 1.29),
        (Machine(flops=100.0, bandwidth=95.0), 1.59 + 2.0),
    ],
)
def test_ideal_seconds(machine, seconds):
    assert ideal_seconds(SHAPE, machine, PARENTS, live_rows=1.5) == pytest.approx(seconds)


def test_a_prompt_asked_twice_is_prefilled_once():
    machine = Machine(flops=1.0, bandwidth=1e9)
    once = ideal_seconds(SHAPE, machine, [([1, 2], [[3], [3]])], live_rows=1.0)
    assert ideal_seconds(SHAPE, machine, [([1, 2], [[3]])] * 2, live_rows=1.0) == once
    assert once == 2 * 20 + 3 * 3 + 10


def test_ideal_training_seconds():
    # Tokens are 3 + 2 + 1 and 1 + 2, of which 5 are predicted. The first prompt attends to
    # 1 + 2 + 3 positions, its completions to 4 + 5 and to 4; the second example to 1 + 2 + 3.
    examples = [([1, 2, 3], [[4, 5], [6]]), ([7], [[8, 9]])]
    flops = 4 * 10 * 9 + 4 * 5 * 5 + 3 * 3 * (6 + 9 + 4 + 6)
    machine = Machine(flops=10.0, bandwidth=1e-9)
    assert ideal_training_seconds(SHAPE, machine, examples) == pytest.approx(flops / 10)


def test_a_pair_that_shares_its_prompt_is_cheaper_than_its_rows_apart():
    machine = Machine(flops=1.0, bandwidth=1.0)
    pair = ideal_training_seconds(SHAPE, machine, [([1, 2], [[3], [4, 5]])])
    apart = ideal_training_seconds(SHAPE, machine, [([1, 2], [[3]]), ([1, 2], [[4, 5]])])
    assert apart - pair == 4 * 10 * 2 + 3 * 3 * (1 + 2)


def test_shape_counts_a_small_model_by_hand():
    config = LlamaConfig(100, 8, 16, 2, 4, 2, 2, 64, 1e-5, Rope())
    # A layer: q and o 8 * 8 each, k and v 8 * 4 each, the MLP 3 * 8 * 16.
    assert Shape.of(config) == Shape(2 * (64 + 64 + 32 + 32 + 384), 800, 2 * 4 * 8, 2 * 2 * 4 * 4)
