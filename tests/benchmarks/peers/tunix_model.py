"""google-tunix's Llama 3 with the weights of a Hugging Face directory, in float32."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from tunix.models.llama3 import model as llama3  # type: ignore[import-not-found]
from tunix.models.llama3 import params


def load(directory: Path, **settings: Any) -> Any:
    """The model (an nnx module, `config` its configuration); `settings` are further fields of
    tunix's ModelConfig."""
    fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    theta = fields["rope_parameters"]["rope_theta"]
    config = llama3.ModelConfig(
        num_layers=fields["num_hidden_layers"],
        vocab_size=fields["vocab_size"],
        embed_dim=fields["hidden_size"],
        hidden_dim=fields["intermediate_size"],
        num_heads=fields["num_attention_heads"],
        head_dim=fields["head_dim"],
        num_kv_heads=fields["num_key_value_heads"],
        rope_theta=theta,
        norm_eps=fields["rms_norm_eps"],
        weight_tying=fields["tie_word_embeddings"],
        **settings,
    )
    # tunix 0.1.7 leaves config.rope_theta unused and rotates by its default of 1,000,000.
    llama3.apply_rope = partial(llama3.apply_rope, rope_theta=theta)
    return params.create_model_from_safe_tensors(str(directory), config, dtype=jnp.float32)
