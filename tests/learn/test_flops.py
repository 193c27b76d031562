"""What a step costs, counted by hand, and what a device can do."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small

from malt_jax.learn import flops
from malt_jax.runtime import peaks

CONFIG = small.model().config


def test_a_step_by_hand():
    """Hidden 32, inner 48, 4 heads and 2 key/value heads of 8, 2 layers. A pair of a prompt of 3
    with completions of 2 and 1, and a row of 1 with 4."""
    body = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    head = CONFIG.vocab_size * 32
    computed, predicted = 3 + 2 + 1 + 1 + 4, 2 + 1 + 4
    # Query-key pairs: a prompt's triangle, and for a completion the prompt and its own triangle.
    pairs = (6 + (2 * 3 + 3) + (1 * 3 + 1)) + (1 + (4 * 1 + 10))
    want = 4 * body * computed + 4 * head * predicted + 12 * 2 * 4 * 8 * pairs
    total = flops.training_flops(CONFIG, np.array([3, 1]), np.array([[2, 1], [4, 0]], np.int32))
    assert total == want


def test_a_long_row_does_not_overflow():
    lengths = np.array([100_000], np.int32)
    assert flops.training_flops(CONFIG, lengths, lengths[:, None]) > 2**41


@pytest.mark.parametrize(
    ("kind", "dtype", "want"),
    [
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5p", "bfloat16", 459e12),
        ("TPU v5", "bfloat16", 459e12),
        ("TPU v6 lite", "bfloat16", 918e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 156e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA GeForce", "bfloat16", None),
    ],
)
def test_peaks_by_kind_of_device(kind, dtype, want):
    devices = [SimpleNamespace(platform="other", device_kind=kind)] * 4
    assert peaks.peak(devices, dtype) == (want and 4 * want)


def test_a_cpus_peak_is_measured_once_and_is_the_machines():
    single = peaks.peak(jax.devices(), np.float32)
    assert 1e8 < single < 1e15
    assert peaks.peak(jax.devices() * 8, np.float32) == single
