"""google-tunix: its `Sampler` on its Llama 3 model, on whatever device its JAX finds.

It pads a batch to one prompt length and compiles for each shape, so prompts of like length share a
batch, and a shape's first use is outside the clock. A prompt is repeated for its children: the
sampler has no way to share one.

    python -m benchmarks.peers.tunix_worker DIRECTORY
"""

import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from tunix.generate.sampler import CacheConfig, Sampler  # type: ignore[import-not-found]

from benchmarks.peers import tunix_model
from benchmarks.peers.serving import cut, evenly, serve

ROWS = 48
BUCKET = 64  # prompts are padded to a multiple of this many tokens


class Ids:
    """A tokenizer whose text is token ids in decimal.

    Positions that hold the padding id are masked: it must be one that no prompt shows.
    """

    def __init__(self, padding: int):
        self._padding = padding

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return ""

    def bos_id(self) -> int:
        return 0  # falsy: the sampler puts none in front

    def eos_id(self) -> int:
        return -1

    def pad_id(self) -> int:
        return self._padding


class Engine:
    """The model, and one sampler a cache length and set of stops (a sampler bakes both in)."""

    def __init__(self, directory: Path):
        self.model = tunix_model.load(directory)
        self.config = self.model.config
        self.sampler = cache(self._sampler)
        self.warm: set[tuple[Any, ...]] = set()

    def _sampler(self, length: int, padding: int, stops: tuple[int, ...]) -> Sampler:
        shape = (self.config.num_layers, self.config.num_kv_heads, self.config.head_dim)
        return Sampler(self.model, Ids(padding), CacheConfig(length, *shape))

    def sample(self, request: dict[str, Any]) -> tuple[list[list[list[int]]], float]:
        """All completions of a request, a list a prompt, and the seconds without compilation."""
        prompts, n, stops = request["prompts"], request["n"], request["stop_ids"]
        done: list[list[list[int]]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        batches = evenly(order, max(ROWS // n, 1))
        most = max(map(len, batches))
        seconds = 0.0
        for number, batch in enumerate(batches):
            filled = batch + batch[-1:] * (most - len(batch))  # one shape for all batches
            rows = [prompts[i] for i in filled for _ in range(n)]
            longest = -(-max(map(len, rows)) // BUCKET) * BUCKET
            run = partial(self._run, rows, longest, request, request["seed"] + number)
            shape = (len(rows), longest, request["max_new_tokens"], request["temperature"])
            if (*shape, *stops) not in self.warm:
                run()
                self.warm.add((*shape, *stops))
            started = time.perf_counter()
            out = run()
            seconds += time.perf_counter() - started
            for place, i in enumerate(batch):
                done[i] = [cut(row, stops) for row in out[place * n : (place + 1) * n]]
        return done, seconds

    def _run(
        self, rows: list[list[int]], longest: int, request: dict[str, Any], seed: int
    ) -> list[list[int]]:
        limit = request["max_new_tokens"]
        drawn = {} if request["temperature"] == 0 else {"top_p": 1.0}
        sampler = self.sampler(longest + limit, request["pad_id"], tuple(request["stop_ids"]))
        output = sampler(
            [" ".join(map(str, row)) for row in rows],
            max_generation_steps=limit,
            max_prompt_length=longest,
            eos_tokens=request["stop_ids"] or [-1],
            temperature=request["temperature"],
            seed=seed,
            pad_output=False,
            **drawn,
        )
        # The stop id itself is left out of `tokens`; a shorter row ended with one.
        stop = request["stop_ids"][:1]
        return [[*map(int, row), *(stop if len(row) < limit else [])] for row in output.tokens]


def main() -> None:
    engine = Engine(Path(sys.argv[1]))

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        completions, seconds = engine.sample(request)
        return {"completions": completions, "seconds": seconds}

    serve(handle)


if __name__ == "__main__":
    main()
