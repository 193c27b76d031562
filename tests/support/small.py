"""A random two-layer Llama with a character tokenizer: everything the engine needs, in
milliseconds."""

import string
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from malt_jax.models import LlamaConfig, Model, hf, llama
from malt_jax.models.config import Rope
from malt_jax.models.lora import Adapter, Params
from malt_jax.text.tokenizer import Tokenizer

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTROL = ("<|end|>", "<|user|>", "<|assistant|>", "<|pad|>")


@lru_cache
def tokenizer() -> Tokenizer:
    """One id a printable ASCII character; chat turns end with <|end|>."""
    letters = [*CONTROL, "?", *sorted(set(string.printable) - {"?"})]
    fast = FastTokenizer(
        models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="?")
    )
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    fast.decoder = decoders.Fuse()
    fast.add_special_tokens(list(CONTROL))
    special = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "unk_token": "?"}
    return Tokenizer.build(fast, special, chat_template=CHAT)


@lru_cache
def model(seed: int = 0, scale: float = 1.0) -> Model:
    """Random weights; `scale` above 1 makes the distributions less flat."""
    config = LlamaConfig(
        vocab_size=tokenizer().vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        context=512,
        norm_eps=1e-5,
        rope=Rope(),
        tied=True,
    )
    params = jax.tree.map(lambda w: w * scale, llama.init(config, jax.random.key(seed)))
    return Model(config, params, "random", (), tokenizer)


def save(directory: Path) -> Path:
    """A sharp one of these models as a Hugging Face directory."""
    sharp = model(scale=4.0)
    hf.save(directory, sharp.config, sharp.params)
    tokenizer().save(directory)
    return directory


@partial(jax.jit, static_argnames="config")
def full_pass(config: LlamaConfig, params: Params, tokens: Array, adapter: Adapter | None) -> Array:
    """Log-probabilities [T, V] of one uncached forward pass over tokens [T]; negative ones are
    padding, to a length that compiles once."""
    row = tokens[None]
    hidden, _ = llama.forward(config, params, jnp.maximum(row, 0), row >= 0, adapter)
    return jax.nn.log_softmax(llama.unembed(config, params, hidden), -1)[0]
