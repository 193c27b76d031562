"""What a LoRA step costs in floating point operations."""

import numpy as np

from malt_jax.models import lora
from malt_jax.models.config import LlamaConfig


def training_flops(config: LlamaConfig, prompts: np.ndarray, completions: np.ndarray) -> float:
    """Floating point operations of one optimiser step, forward and backward: what the mathematics
    asks for, without padding and without what remat computes again.

    A frozen weight costs 2 a token forwards and 2 backwards (the gradient of its input; it has none
    of its own): 4 x body x computed tokens, and 4 x head x predicted tokens, for the head looks at
    those alone. Attention costs 4 x heads x head size a layer and pair of query and key forwards
    (scores, values) and twice that backwards. A prompt counts once. The adapter's own products
    (6 x its size a token) are left out, as in the roofline 4P.

    Args:
        prompts: int[N], lengths of the step's prompts.
        completions: int[N, C], of their completions, 0 for none.
    """
    body = config.num_layers * sum(
        fan_in * fan_out for fan_in, fan_out in (lora.sizes(config, t) for t in lora.TARGETS)
    )
    head = config.vocab_size * config.hidden_size
    prompts, completions = prompts.astype(np.int64), completions.astype(np.int64)
    predicted = completions.sum()
    seen = prompts * (prompts + 1) // 2
    seen = seen + (completions * prompts[:, None] + completions * (completions + 1) // 2).sum(1)
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * seen.sum()
    return float(4 * body * (prompts.sum() + predicted) + 4 * head * predicted + attention)
