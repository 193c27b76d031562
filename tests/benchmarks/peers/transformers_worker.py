"""transformers: `generate` on torch, with `num_return_sequences` children a prompt.

python -m benchmarks.peers.transformers_worker DIRECTORY dynamic|static
"""

import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peers.serving import cut, evenly, serve

ROWS = 48


def sample(model: Any, cache: str, request: dict[str, Any]) -> list[list[list[int]]]:
    """All completions of a request, a list a prompt. Prompts of like length share a batch."""
    prompts, n, stops = request["prompts"], request["n"], request["stop_ids"]
    done: list[list[list[int]]] = [[] for _ in prompts]
    torch.manual_seed(request["seed"])
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for batch in evenly(order, max(ROWS // n, 1)):
        width = max(len(prompts[i]) for i in batch)
        padded = [[0] * (width - len(prompts[i])) + prompts[i] for i in batch]
        real = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
        greedy = request["temperature"] == 0
        drawn = {} if greedy else {"temperature": request["temperature"], "top_k": 0, "top_p": 1.0}
        out = model.generate(
            torch.tensor(padded),
            attention_mask=torch.tensor(real),
            do_sample=not greedy,
            **drawn,
            num_return_sequences=n,
            max_new_tokens=request["max_new_tokens"],
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
            cache_implementation="static" if cache == "static" else None,
        )
        rows = out[:, width:].tolist()
        for place, i in enumerate(batch):
            done[i] = [cut(row, stops) for row in rows[place * n : (place + 1) * n]]
    return done


def main() -> None:
    directory, cache = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # stops are the request's alone

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        with torch.inference_mode():
            completions = sample(model, cache, request)
        return {"completions": completions, "seconds": time.perf_counter() - started}

    serve(handle)


if __name__ == "__main__":
    main()
