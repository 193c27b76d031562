"""Tiny random models of every family, made and saved by transformers."""

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
def tiny_llama() -> Callable[..., transformers.PreTrainedModel]:
    """Makes a seeded random model of transformers, a Llama unless `model_type` says otherwise;
    keyword arguments override `TINY`."""

    def make(model_type: str = "llama", **fields: Any) -> transformers.PreTrainedModel:
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(model_type, **(TINY | fields))
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
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
