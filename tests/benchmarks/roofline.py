"""The least time a machine could need for a tree or for training, from what must be computed and
read at least."""

from collections.abc import Sequence
from dataclasses import dataclass

from malt_jax.models.config import LlamaConfig

Parent = tuple[list[int], list[list[int]]]  # a prompt, and the completions of its children
Example = tuple[list[int], list[list[int]]]  # a prompt, and the completions trained on


@dataclass(frozen=True)
class Machine:
    """What was measured: `flops` in FLOP/s of a float32 matmul, `bandwidth` in bytes/s read."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Shape:
    """A model in numbers: parameters of the layers and of the head, and, a position attended to,
    FLOPs (over all layers) and bytes of keys and values. Values take 4 bytes."""

    body: int
    head: int
    attention_flops: int
    kv_bytes: int

    @classmethod
    def of(cls, config: LlamaConfig) -> "Shape":
        hidden, width = config.hidden_size, config.head_dim
        projections = hidden * width * (2 * config.num_heads + 2 * config.num_kv_heads)
        layer = projections + 3 * hidden * config.intermediate_size
        return cls(
            body=config.num_layers * layer,
            head=config.vocab_size * hidden,
            attention_flops=config.num_layers * 4 * config.num_heads * width,
            kv_bytes=config.num_layers * 2 * config.num_kv_heads * width * 4,
        )


def ideal_seconds(
    shape: Shape, machine: Machine, parents: Sequence[Parent], live_rows: float
) -> float:
    """A lower bound of the seconds in which `machine` can sample these completions.

    Prefill: each distinct beginning of a prompt is computed once, over all prompts; a position
    costs 2 FLOPs a layer parameter and attends to itself and those before it; each distinct prompt
    meets the head once. Decoding: a row of m tokens feeds m - 1 of them back, each through all
    weights; it takes the longer of the FLOPs at peak and, at full bandwidth, the weights once a
    step of `live_rows` rows, a parent's prompt once a step of its longest child, and a row's own
    tokens once each of its steps.
    """
    prompts: list[tuple[int, ...]] = sorted({tuple(prompt) for prompt, _ in parents})
    prefill = 0
    for before, prompt in zip([(), *prompts[:-1]], prompts, strict=True):
        new, end = _shared(before, prompt), len(prompt)
        attended = (end * (end + 1) - new * (new + 1)) // 2
        prefill += 2 * shape.body * (end - new) + shape.attention_flops * attended
        prefill += 2 * shape.head
    fed_back = attended = cached = 0
    for start, rows in parents:
        steps = [len(row) - 1 for row in rows]
        in_rows = sum(m * (m + 1) // 2 for m in steps)
        fed_back += sum(steps)
        attended += sum(steps) * len(start) + in_rows
        cached += max(steps) * len(start) + in_rows
    weights = shape.body + shape.head
    flops = 2 * weights * fed_back + shape.attention_flops * attended
    read = 4 * weights * fed_back / live_rows + shape.kv_bytes * cached
    return prefill / machine.flops + max(flops / machine.flops, read / machine.bandwidth)


def ideal_training_seconds(shape: Shape, machine: Machine, examples: Sequence[Example]) -> float:
    """A lower bound of the seconds in which `machine` can take these examples through one epoch of
    LoRA training, in any order and batches, reference log-probabilities being stored.

    Each prompt is computed once for all its completions, each completion's tokens once, and nothing
    twice (no recomputation). A token costs 4 FLOPs a layer parameter: 2 forward and 2 for the
    gradient of its input, for the layers are frozen; the adapter's own FLOPs, 1 to 3 % of that,
    are left out. A predicted token meets the head, frozen too, at 4 FLOPs a parameter. A position
    attended to costs its share of QK^T and PV forward, and twice that backward. A completion's
    tokens attend to the prompt, to those before them and to themselves.
    """
    tokens = predicted = attended = 0
    for prompt, completions in examples:
        before, lengths = len(prompt), [len(row) for row in completions]
        tokens += before + sum(lengths)
        predicted += sum(lengths)
        attended += before * (before + 1) // 2
        attended += sum(m * before + m * (m + 1) // 2 for m in lengths)
    flops = 4 * shape.body * tokens + 4 * shape.head * predicted
    return (flops + 3 * shape.attention_flops * attended) / machine.flops


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two prompts share."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
