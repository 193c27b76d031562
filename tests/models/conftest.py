"""Tiny random Llamas, saved by transformers, and the helpers that compare with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,  # logits of order 1 to 10, so that an error of 1e-4 means something
}


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., transformers.LlamaForCausalLM]:
    """Makes a seeded random Llama of transformers; keyword arguments override `TINY`."""

    def make(**fields: Any) -> transformers.LlamaForCausalLM:
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**(TINY | fields))
        model = transformers.LlamaForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # zeros and ones would hide mistakes
                torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
        return model

    return make


@pytest.fixture(scope="session")
def tiny_directory(tiny_llama, tmp_path_factory) -> Path:
    """One tiny Llama as a Hugging Face directory."""
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama().save_pretrained(path)
    return path
