"""The optimiser's first steps by hand, and its schedule."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from malt_jax.learn.optim import adamw, schedule

PLAIN: dict[str, Any] = {
    "warmup": 0.0,
    "weight_decay": 0.0,
    "b1": 0.9,
    "b2": 0.99,
    "clip_norm": 1e9,
}


def run(optimiser, params, gradients):
    """Parameters after each gradient."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, history = jax.jit(optimiser.init)(params), []
    for gradient in gradients:
        params, state = step(params, state, gradient)
        history.append(params)
    return history


def test_two_steps_by_hand():
    """1 - 0.1 * (1 + 0.01); then rate (1 + cos 18 deg) / 20, m 0.02 / 0.19, v 0.0031 / 0.0199."""
    optimiser = adamw(0.1, 10, **{**PLAIN, "weight_decay": 0.01})
    first, second = run(optimiser, jnp.array(1.0), [jnp.array(0.5), jnp.array(-0.25)])
    assert float(first) == pytest.approx(0.899, abs=1e-6)
    assert float(second) == pytest.approx(0.8721057, abs=1e-6)


def test_clipping_comes_before_adam_and_is_global():
    """A first gradient of norm 50 must leave the state that (0.6, 0.8) leaves."""
    start = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
    then = {"a": jnp.array(0.1), "b": jnp.array(-0.1)}
    large = {"a": jnp.array(30.0), "b": jnp.array(40.0)}
    unit = {"a": jnp.array(0.6), "b": jnp.array(0.8)}
    clipped = run(adamw(0.1, 10, **{**PLAIN, "clip_norm": 1.0}), start, [large, then])[-1]
    want = run(adamw(0.1, 10, **PLAIN), start, [unit, then])[-1]
    unclipped = run(adamw(0.1, 10, **PLAIN), start, [large, then])[-1]
    for name in start:
        assert float(clipped[name]) == pytest.approx(float(want[name]), abs=1e-6)
        assert abs(float(clipped[name]) - float(unclipped[name])) > 1e-3


def rates(*args):
    steps = args[1]
    return [float(schedule(*args)(i)) for i in range(steps + 1)]


def test_schedule_literals():
    """Four rising updates of ten at fifths of the peak, then a cosine over six."""
    want = [0.2, 0.4, 0.6, 0.8] + [0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(7)]
    np.testing.assert_allclose(rates(1.0, 10, 0.4), want, atol=1e-6)


def test_schedule_without_warm_up_starts_at_the_peak():
    np.testing.assert_allclose(rates(2.0, 2, 0.0), [2.0, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_schedule_of_any_length_reaches_the_peak_once_and_ends_at_zero(steps, warmup):
    got = rates(3.0, steps, warmup)
    peak = int(np.argmax(got))
    assert got[peak] == pytest.approx(3.0)
    assert all(rate > 0 for rate in got[:-1])
    assert got[-1] == pytest.approx(0, abs=1e-6)
    assert all(np.diff(got[: peak + 1]) > 0)
    assert all(np.diff(got[peak:]) < 0)


def test_one_step_is_taken_at_the_peak():
    optimiser = adamw(0.1, 1, **{**PLAIN, "warmup": 0.5})
    assert float(run(optimiser, jnp.array(1.0), [jnp.array(2.0)])[0]) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"warmup": 1.0}, {"warmup": -0.1}, {"clip_norm": 0.0}]
)
def test_impossible_settings_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        adamw(**{"peak_lr": 0.1, "steps": 10, **PLAIN, **bad})
