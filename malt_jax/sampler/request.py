"""What is asked of the sampler, what it gives back, and what that took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from malt_jax.sampler.draw import Sampling

_PLAIN = Sampling()


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt and the random keys of its children: `keys: uint32[C, 2]`, one a child.

    `adapter` is an index into the adapters of the run; `tag` is the caller's. `sampling` is for a
    session `ByRequest` alone.
    """

    prompt: Sequence[int]
    keys: np.ndarray
    max_new_tokens: int
    adapter: int = 0
    tag: Any = None
    sampling: Sampling = _PLAIN


@dataclass(frozen=True)
class ByRequest:
    """A session's way for requests that come at any time: each says how it is sampled, and its
    tokens are read while they are drawn.

    A pass of decoding takes about `tick` seconds. Programs are compiled at few widths.
    """

    tick: float = 0.05


@dataclass(frozen=True)
class Completion:
    """One sampled row. `tokens` ends with the stop id iff `stopped`; else it ran to its limit.

    Log-probabilities are float32[len(tokens)]: `logps` under the model itself (temperature 1,
    nothing cut), `behaviour` under the distribution that was sampled (temperature, top-k and top-p
    applied; 0 where it is greedy).
    """

    tokens: list[int]
    logps: np.ndarray
    behaviour: np.ndarray
    stopped: bool


@dataclass
class Work:
    """What a run of the sampler did, in tokens.

    A prompt's last token is fed by its children as their first, so `prefilled + reused` is the sum
    of the prompts' lengths less one each. A step of decoding costs all rows of its width, of which
    `decoded` gave a token.
    """

    prefilled: int = 0  # prompt tokens computed
    reused: int = 0  # prompt tokens found computed: their prefix had been met before
    prefill_slots: int = 0  # what the prefill passes had room for
    decoded: int = 0  # tokens drawn
    decode_slots: int = 0  # rows times steps
    steps: int = 0
    peak_pages: int = 0  # the most pages of the decode pool in use at a time, on one shard

    @property
    def occupancy(self) -> float:
        """The share of decoded rows that gave a token."""
        return self.decoded / max(self.decode_slots, 1)

    def summary(self) -> str:
        """One line for a log."""
        return (
            f"{self.decoded:,} tokens drawn in {self.steps:,} steps, {self.occupancy:.0%} of the "
            f"rows busy; {self.prefilled:,} prompt tokens computed, {self.reused:,} shared"
        )
