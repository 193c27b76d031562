"""Our logits are transformers' logits: over configs, paddings, shards and dtypes."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from malt_jax.models import LlamaConfig, hf, llama, load
from malt_jax.models.config import Rope

torch = pytest.importorskip("torch")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "grouped, untied": {},
    "tied": {"tie_word_embeddings": True},
    "one key head, llama3 rope": {"num_key_value_heads": 1, "rope_parameters": LLAMA3},
    "every head its own keys, linear rope": {
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0},
    },
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head size apart from hidden size": {"head_dim": 12, "tie_word_embeddings": True},
    "gelu": {"hidden_act": "gelu"},
    "tanh gelu, theta": {"hidden_act": "gelu_pytorch_tanh", "rope_theta": 70.0},
    "mistral": {"model_type": "mistral", "sliding_window": 40},
    "mistral without a window": {
        "model_type": "mistral",
        "sliding_window": None,
        "head_dim": 12,
        "tie_word_embeddings": True,
    },
    "qwen2": {"model_type": "qwen2"},
    "qwen2, tied, one key head": {
        "model_type": "qwen2",
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rope_theta": 1e6,
    },
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3, biases, every head its own keys": {
        "model_type": "qwen3",
        "head_dim": 12,
        "num_key_value_heads": 4,
        "attention_bias": True,
    },
}


def tokens_and_mask(padding: str, length: int = 40) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(1).integers(0, 97, (3, length))
    places, real = np.arange(length), np.array([[length], [length - 7], [5]])
    mask = places < real if padding == "right" else places >= length - real
    return tokens, mask if padding else np.ones_like(mask)


def reference(model, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    positions = np.maximum(mask.cumsum(-1) - 1, 0)
    with torch.no_grad():
        return model(
            torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            position_ids=torch.tensor(positions),
        ).logits.numpy()


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("padding", ["", "left", "right"])
def test_logits_equal_transformers(tiny_llama, tmp_path, fields, padding):
    model = tiny_llama(**fields)
    model.save_pretrained(tmp_path)
    tokens, mask = tokens_and_mask(padding)
    ours = np.asarray(load(tmp_path).logits(tokens, mask))
    theirs = reference(model, tokens, mask)
    assert np.abs(theirs[mask]).max() > 1.0
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-4, rtol=0)


def test_without_a_mask_every_token_is_real(tiny_directory):
    model, tokens = load(tiny_directory), tokens_and_mask("")[0]
    np.testing.assert_array_equal(
        model.logits(tokens), model.logits(tokens, np.ones(tokens.shape, bool))
    )


@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_changes_nothing(tiny_directory, padding):
    """What stands in the padded places, and that there are any, cannot be seen in the logits."""
    model = load(tiny_directory)
    tokens, mask = tokens_and_mask(padding)
    other = np.where(mask, tokens, (tokens + 1) % 97)
    first, second = (np.asarray(model.logits(t, mask))[mask] for t in (tokens, other))
    np.testing.assert_array_equal(first, second)
    alone = np.asarray(model.logits(tokens[2:][mask[2:]][None]))
    np.testing.assert_allclose(first[-5:], alone[0], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_disk_widens_exactly(tiny_llama, tmp_path, dtype):
    half = tiny_llama().to(dtype)
    half.save_pretrained(tmp_path)
    wide = type(half).from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens, mask = tokens_and_mask("")
    ours = np.asarray(load(tmp_path, jnp.float32).logits(tokens))
    np.testing.assert_allclose(ours, reference(wide, tokens, mask), atol=1e-4, rtol=0)


def test_bfloat16_parameters(tiny_directory):
    model = load(tiny_directory, jnp.bfloat16)
    assert model.params["layers"][0]["q"]["kernel"].dtype == jnp.bfloat16
    tokens = tokens_and_mask("")[0]
    logits = model.logits(tokens)
    assert logits.dtype == jnp.float32
    exact = np.asarray(load(tiny_directory).logits(tokens))
    assert 0 < np.abs(np.asarray(logits) - exact).mean() < 0.02 * np.abs(exact).max()


def test_shards_equal_one_file(tiny_llama, tiny_directory, tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    tokens = tokens_and_mask("")[0]
    np.testing.assert_array_equal(
        load(tmp_path).logits(tokens), load(tiny_directory).logits(tokens)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": LLAMA3, "attention_bias": True},
        {"model_type": "mistral", "sliding_window": 24},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2"},
        {"model_type": "qwen3", "attention_bias": True},
    ],
)
def test_saved_models_return_unchanged_and_transformers_reads_them(tiny_llama, tmp_path, fields):
    model = tiny_llama(**fields)
    model.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    hf.save(tmp_path / "ours", ours.config, ours.params)
    assert load(tmp_path / "ours").config == ours.config
    written = load_file(tmp_path / "ours" / "model.safetensors")
    for name, array in load_file(tmp_path / "theirs" / "model.safetensors").items():
        np.testing.assert_array_equal(written.pop(name), array)
    assert not written
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(model)
    tokens, mask = tokens_and_mask("")
    np.testing.assert_array_equal(reference(again, tokens, mask), reference(model, tokens, mask))


def test_llama3_frequencies_by_hand():
    """theta 16, head size 4: frequencies 1 and 1/4, wavelengths 2 pi and 8 pi.

    With an original context of 16 pi these turn 8 and 2 times. Above 4 turns a frequency is kept; 2
    lies a third of the way from 1 to 4, so 1/4 becomes 1/4 (1/3 + 2/3 / 2) = 1/6.
    """
    rope = Rope(16.0, "llama3", 2.0, 1.0, 4.0, original_context=16 * np.pi)  # type: ignore[arg-type]
    np.testing.assert_allclose(llama.rope_frequencies(rope, 4), [1.0, 1 / 6], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_parameters.factor"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"model_type": "mixtral"}, "model_type.*dense.*qwen3"),
        ({"model_type": "gemma2"}, "model_type"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"head_dim": 7}, "head_dim"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
)
def test_what_the_port_cannot_honour_is_refused_by_name(tiny_llama, fields, named):
    config = tiny_llama().config.to_dict()
    config.pop("rope_parameters")
    LlamaConfig.from_hf(config)
    with pytest.raises(ValueError, match=named):
        LlamaConfig.from_hf(config | fields)


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
def test_config_survives_a_round_trip(tiny_llama, fields):
    config = LlamaConfig.from_hf(json.loads(tiny_llama(**fields).config.to_json_string()))
    assert LlamaConfig.from_hf(config.to_hf()) == config
