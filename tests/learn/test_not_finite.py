"""NaN and infinity are found where they arise."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from sampling import adapter, requests, run, sampler


def test_logits_that_are_not_finite_end_the_run():
    """A row of NaN drew the first token of the vocabulary, again and again, and was graded."""
    small_sampler = sampler()
    broken = adapter(small_sampler, 0)
    broken = jax.tree.map(lambda leaf: leaf.at[..., 0].set(np.inf) if leaf.ndim else leaf, broken)
    with pytest.raises(FloatingPointError, match=r"sampling: .* not finite; look at the adapters"):
        run(
            small_sampler,
            [replace(r, adapter=r.tag % 2) for r in requests(4)],
            adapters=[None, broken],
        )
