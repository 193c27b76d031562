"""What sets one family apart from another: its defaults, its windows, and its decoding in pages."""

from typing import Any, get_args

import jax
import numpy as np
import pytest
import small
import transformers

from malt_jax.models import LlamaConfig, llama, load, lora
from malt_jax.models.config import Family
from malt_jax.models.lora import Adapter
from malt_jax.rollout.keys import node_keys
from malt_jax.runtime import mesh
from malt_jax.sampler import Completion, Request, Sampler, Sampling

torch = pytest.importorskip("torch")

FAMILIES = get_args(Family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_left_out_means_what_it_does_in_transformers(family):
    """Mistral and Qwen have 8 and 32 key/value heads where a Llama has as many as query heads."""
    for fields in ({}, {"num_attention_heads": 64, "hidden_size": 8192}):
        theirs = transformers.AutoConfig.for_model(family, **fields).to_dict()
        assert LlamaConfig.from_hf({"model_type": family} | fields) == LlamaConfig.from_hf(theirs)


@pytest.mark.parametrize(
    ("fields", "context", "theta"),
    [
        (  # Qwen2.5-1.5B-Instruct: a window that is switched off
            {
                "model_type": "qwen2",
                "rope_theta": 1e6,
                "sliding_window": 32_768,
                "max_window_layers": 21,
                "use_sliding_window": False,
            },
            32_768,
            1e6,
        ),
        (  # Qwen3-0.6B
            {
                "model_type": "qwen3",
                "max_position_embeddings": 40_960,
                "rope_scaling": None,
                "rope_theta": 1_000_000,
                "sliding_window": None,
            },
            40_960,
            1e6,
        ),
        (  # Mistral-7B-v0.1
            {"model_type": "mistral", "max_position_embeddings": 32_768, "sliding_window": 4096},
            4096,
            1e4,
        ),
        (  # Mistral-7B-Instruct-v0.3
            {
                "model_type": "mistral",
                "max_position_embeddings": 32_768,
                "rope_theta": 1e6,
                "sliding_window": None,
            },
            32_768,
            1e6,
        ),
    ],
)
def test_published_configs_of_the_old_layout(fields, context, theta):
    parsed = LlamaConfig.from_hf(fields)
    assert (parsed.context, parsed.rope.theta, parsed.rope.kind) == (context, theta, "default")


def test_what_a_config_of_another_family_says_in_passing_counts_for_nothing():
    """transformers ignores these fields there: no weights belong to them."""
    stray = {"attention_bias": True, "mlp_bias": True}
    qwen2 = LlamaConfig.from_hf({"model_type": "qwen2", "sliding_window": 16} | stray)
    assert (qwen2.attention_bias, qwen2.mlp_bias, qwen2.context) == (False, False, 32_768)
    assert LlamaConfig.from_hf({"sliding_window": 16}).context == 2048


@pytest.mark.parametrize("padding", [0, 4])
def test_a_mistral_ends_with_its_window_and_not_a_token_sooner(tiny_llama, tmp_path, padding):
    """The sixteenth token still sees the first; the seventeenth would in full attention only, and
    is refused."""
    model = tiny_llama(model_type="mistral", sliding_window=16)
    model.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert (ours.config.context, ours.config.window) == (16, 16)
    tokens = np.random.default_rng(2).integers(0, 97, (1, 24))
    mask = (np.arange(24) >= padding)[None]
    positions = torch.tensor(np.maximum(mask.cumsum(-1) - 1, 0))
    with torch.no_grad():
        padded = {"attention_mask": torch.tensor(mask.astype(np.int64)), "position_ids": positions}
        theirs = model(torch.tensor(tokens), **padded).logits.numpy()[0]
    end = padding + 16
    got = np.asarray(ours.logits(tokens[:, :end], mask[:, :end]))[0]
    np.testing.assert_allclose(got[padding:], theirs[padding:end], atol=1e-4)
    with pytest.raises(ValueError, match="sliding window of 16"):
        ours.logits(tokens[:, : end + 1], mask[:, : end + 1])


SEES_ALL: list[dict[str, Any]] = [
    {"sliding_window": 64},
    {"use_sliding_window": True, "sliding_window": 256, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
    {"use_sliding_window": True, "sliding_window": None},
    {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["full_attention"] * 2},
]
SEES_LESS: list[tuple[dict[str, Any], str]] = [
    ({"use_sliding_window": True, "sliding_window": 255, "max_window_layers": 1}, "see 255"),
    ({"use_sliding_window": True, "max_window_layers": 1, "max_position_embeddings": 4097}, "4096"),
    (
        {
            "use_sliding_window": True,
            "sliding_window": 64,
            "max_window_layers": 2,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        "use_sliding_window",
    ),
    ({"layer_types": ["sliding_attention", "full_attention"]}, "use_sliding_window"),
    ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types.*linear"),
]


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("fields", SEES_ALL)
def test_a_qwen_whose_layers_see_all_keeps_its_context(tiny_llama, tmp_path, family, fields):
    model = tiny_llama(model_type=family, **fields)
    model.save_pretrained(tmp_path)
    ours, tokens = load(tmp_path), np.random.default_rng(2).integers(0, 97, (1, 80))
    assert ours.config.context == 256
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(ours.logits(tokens), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize(("fields", "named"), SEES_LESS)
def test_a_qwen_with_layers_that_see_less_is_refused(family, fields, named):
    shape = {"model_type": family, "num_hidden_layers": 2, "max_position_embeddings": 256}
    with pytest.raises(ValueError, match=named):
        LlamaConfig.from_hf(shape | fields)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "gemma2", "gemma3_text"])
def test_other_families_are_refused_with_those_that_are_read(kind):
    with pytest.raises(ValueError, match=f"{kind}.*llama, mistral, qwen2, qwen3"):
        LlamaConfig.from_hf({"model_type": kind})


def filled(config: LlamaConfig) -> Adapter:
    fresh = lora.init(config, jax.random.key(0), rank=2, alpha=4.0)
    leaves, shape = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(shape, drawn)


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"model_type": "qwen2"}, [12]),
        ({"model_type": "qwen3", "head_dim": 12, "num_key_value_heads": 1}, [12, 40]),
    ],
    ids=["qwen2", "qwen3"],
)
def test_decoding_in_pages_equals_the_full_pass(tiny_llama, tmp_path, fields, rows):
    """Greedy, over the end of a page, beside rows of another adapter, and the same bits whatever
    the number of rows: keys go into the pool normed and rotated."""
    tiny_llama(**fields).save_pretrained(tmp_path)
    model = load(tmp_path)
    adapters = [None, filled(model.config)]
    rng = np.random.default_rng(0)
    keys = [node_keys(0, "test", str(i), [(0,), (1,)]) for i in range(4)]
    asked = [
        Request(rng.integers(0, 97, length).tolist(), keys[i], 40, adapter=i % 2, tag=i)
        for i, length in enumerate((1, 50, 64, 130))
    ]

    def run(rows: int) -> dict[int, list[Completion]]:
        sampler = Sampler(model.config, model.params, mesh.make(), rows, (), pad_id=0)
        left = iter(asked)
        done = sampler.run(lambda: next(left, None), adapters, sampling=Sampling(0.0))
        return {request.tag: completions for request, completions in done}

    runs = [run(n) for n in rows]
    for request in asked:
        completion = runs[0][request.tag][0]
        for other in runs[1:]:
            assert completion.tokens == other[request.tag][0].tokens
            np.testing.assert_array_equal(completion.logps, other[request.tag][0].logps)
        start = len(request.prompt) - 1
        whole = np.full(170, -1)
        whole[: start + 41] = [*request.prompt, *completion.tokens]
        logps = small.full_pass(model.config, model.params, whole, adapters[request.adapter])
        logps = np.asarray(logps)[start : start + 40]
        assert completion.tokens == np.argmax(logps, -1).tolist()
        expected = logps[np.arange(40), completion.tokens]
        np.testing.assert_allclose(completion.logps, expected, atol=5e-5)


def test_every_parameter_of_every_family_has_its_place_on_a_mesh():
    """Projections and their biases are split; norms, those of queries and keys too, are whole."""
    for family in FAMILIES:
        fields = {"model_type": family, "num_hidden_layers": 1, "attention_bias": True}
        config = LlamaConfig.from_hf(fields)
        for path, leaf in jax.tree.leaves_with_path(llama.param_shapes(config)):
            keys = [entry.key for entry in path]
            axes = mesh.logical_axes(keys, len(leaf.shape))
            assert len(axes) == len(leaf.shape)
            assert any(axes) == ("norm" not in "".join(map(str, keys))), keys
