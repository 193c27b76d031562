"""llama.cpp: continuous batching over rows, with the prompts' keys and values shared.

What the prompts have in common (a role's instruction) is prefilled once a request, the rest of a
prompt once, and its children get copies of the sequence, which share its cells. A row that ends is
given to the next child at once, and prompts are prefilled in the batches that decode other rows.

    python -m benchmarks.peers.llama_cpp_worker FILE.gguf
"""

import ctypes
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import llama_cpp as llama  # type: ignore[import-not-found]

from benchmarks.peers.serving import serve

# The best of what was tried: 12 and 24 rows, one cache or one a sequence, with and without flash
# attention, a cache in F32 and in F16 (llama.cpp's own default).
ROWS = 24
UNIFIED = True
FLASH = True
KV_TYPE = llama.GGML_TYPE_F16
CONTEXT = 1024  # cells a row, shared prompts included


@dataclass
class Row:
    """One child: its place in the answer, its tokens so far, its sampler and its next position."""

    prompt: int
    sampler: Any
    length: int
    tokens: list[int] = field(default_factory=list)


class Engine:
    """A model with one context of ROWS sequences, and two more: the prompts' common beginning and
    the prompt whose children are being started."""

    def __init__(self, file: str):
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(file.encode(), params)
        if not self.model:
            raise ValueError(f"{file}: llama.cpp could not load it")
        wanted = llama.llama_context_default_params()
        wanted.n_seq_max = ROWS + 2
        wanted.n_ctx = CONTEXT * wanted.n_seq_max
        wanted.n_batch = wanted.n_ubatch = CONTEXT
        wanted.n_threads = wanted.n_threads_batch = os.cpu_count() or 1
        wanted.kv_unified = UNIFIED
        wanted.flash_attn_type = int(FLASH)
        wanted.type_k = wanted.type_v = KV_TYPE
        self.context = llama.llama_init_from_model(self.model, wanted)
        if not self.context:
            raise ValueError(f"{file}: llama.cpp gave no context")
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(CONTEXT, 0, 1)

    def sample(self, request: dict[str, Any]) -> list[list[list[int]]]:
        """All completions of a request, a list a prompt."""
        common, prompt = ROWS, ROWS + 1  # sequences beside the rows' own
        prompts, limit, stops = (request[k] for k in ("prompts", "max_new_tokens", "stop_ids"))
        done: list[list[list[int]]] = [[] for _ in prompts]
        llama.llama_memory_clear(self.memory, False)
        shared = _shared(prompts)
        if shared:
            self._add(prompts[0][:shared], 0, common, wanted=False)
            self._decode()
        pending = deque(enumerate(prompts))
        waiting: deque[Row] = deque()
        live: dict[int, Row] = {}
        free = list(range(ROWS))

        def ended(row: Row) -> bool:
            if row.tokens[-1] not in stops and len(row.tokens) < limit:
                return False
            done[row.prompt].append(row.tokens)
            llama.llama_sampler_free(row.sampler)
            return True

        while pending or waiting or live:
            outputs = []
            for sequence, row in live.items():
                outputs.append(self._add(row.tokens[-1:], row.length, sequence, wanted=True))
                row.length += 1
            starting = pending.popleft() if pending and free and not waiting else None
            if starting:
                llama.llama_memory_seq_rm(self.memory, prompt, -1, -1)
                llama.llama_memory_seq_cp(self.memory, common, prompt, -1, -1)
                first = self._add(starting[1][shared:], shared, prompt, wanted=True)
            self._decode()
            for (sequence, row), output in zip(list(live.items()), outputs, strict=True):
                row.tokens.append(llama.llama_sampler_sample(row.sampler, self.context, output))
                if ended(row):
                    del live[sequence]
                    llama.llama_memory_seq_rm(self.memory, sequence, -1, -1)
                    free.append(sequence)
            if starting:
                for child in range(request["n"]):
                    row = Row(starting[0], _sampler(request, starting[0], child), len(starting[1]))
                    row.tokens.append(llama.llama_sampler_sample(row.sampler, self.context, first))
                    if not ended(row):
                        waiting.append(row)
            while waiting and free:
                sequence = free.pop()
                live[sequence] = row = waiting.popleft()
                llama.llama_memory_seq_cp(self.memory, prompt, sequence, -1, -1)
        return done

    def _add(self, tokens: list[int], position: int, sequence: int, *, wanted: bool) -> int:
        """Appends tokens of one sequence to the batch; the index of the last one, whose logits are
        computed if `wanted`."""
        batch = self.batch
        if batch.n_tokens + len(tokens) > CONTEXT:
            raise ValueError(f"a batch of more than {CONTEXT} tokens; raise CONTEXT")
        for offset, token in enumerate(tokens):
            i = batch.n_tokens
            batch.token[i], batch.pos[i] = token, position + offset
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted and offset == len(tokens) - 1
            batch.n_tokens += 1
        return batch.n_tokens - 1

    def _decode(self) -> None:
        if status := llama.llama_decode(self.context, self.batch):
            raise RuntimeError(f"llama_decode: status {status}")
        self.batch.n_tokens = 0


def _shared(prompts: list[list[int]]) -> int:
    """How many leading tokens all prompts share, of several prompts; the last token of a prompt is
    always left to decode."""
    if len(prompts) < 2:
        return 0
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _sampler(request: dict[str, Any], prompt: int, child: int) -> Any:
    if request["temperature"] == 0:
        return llama.llama_sampler_init_greedy()
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp(request["temperature"]))
    seed = hash((request["seed"], prompt, child)) % 2**32
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist(seed))
    return chain


@llama.llama_log_callback
def _quiet(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    if level >= 3:
        sys.stderr.write(text.decode(errors="replace"))


def main() -> None:
    llama.llama_log_set(_quiet, ctypes.c_void_p(0))
    engine = Engine(sys.argv[1])

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        completions = engine.sample(request)
        return {"completions": completions, "seconds": time.perf_counter() - started}

    serve(handle)


if __name__ == "__main__":
    main()
