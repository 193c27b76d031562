"""LoRA: nothing at first, PEFT's numbers after that, and one program for all roles."""

import json
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters import damage, filled
from safetensors.numpy import load_file

from malt_jax.models import llama, load, lora
from malt_jax.models.peft import load_adapter, save_adapter
from malt_jax.sampler.programs import options

torch = pytest.importorskip("torch")

peft = pytest.importorskip("peft")

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
}
TOKENS = np.random.default_rng(3).integers(0, 97, (2, 11))


@pytest.fixture(scope="module")
def model(tiny_directory):
    return load(tiny_directory)


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request, tiny_llama, tmp_path_factory):
    """What makes the base of a family, and that base in our hands."""
    make, path = partial(tiny_llama, **request.param), tmp_path_factory.mktemp("base")
    make().save_pretrained(path)
    return make, load(path)


@partial(jax.jit, static_argnums=0)
def logits(config, params, adapter):
    hidden, _ = llama.forward(config, params, TOKENS, np.ones_like(TOKENS), adapter)
    return llama.unembed(config, params, hidden)


@pytest.mark.parametrize(("inner", "rank", "out"), [(32, 2, 48), (576, 24, 1536), (1536, 48, 576)])
def test_a_rows_bits_do_not_depend_on_how_many_stand_beside_it(inner, rank, out):
    """With stacked adapters [in, out], CPUs without AVX-512 summed in another order from some
    number of rows on, and a node's tokens could depend on its batch."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 1, inner), np.float32)
    shapes = {"low": (rank, inner), "high": (out, rank)}
    pair = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    product = jax.jit(lora.stacked_product, compiler_options=options("cpu"))
    four = np.asarray(product(x[:4], pair, jnp.ones((4, 1, rank))))
    for rows in (8, 12, 16, 24, 40, 64, 96, 256):
        more = product(x[:rows], pair, jnp.ones((rows, 1, rank)))
        np.testing.assert_array_equal(np.asarray(more)[:4], four)


def theirs(model) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def test_a_fresh_adapter_changes_no_bit(model):
    fresh = lora.init(model.config, jax.random.key(0), rank=4, alpha=8.0)
    np.testing.assert_array_equal(
        logits(model.config, model.params, fresh), logits(model.config, model.params, None)
    )


@pytest.mark.parametrize("target", lora.TARGETS)
def test_every_target_is_reached(model, target):
    adapter = filled(model.config, 0, targets=[target])
    moved = logits(model.config, model.params, adapter) - logits(model.config, model.params, None)
    assert np.abs(moved).max() > 0.01


def test_merging_equals_applying_and_unmerging_returns(model):
    adapter = filled(model.config, 1)
    applied = logits(model.config, model.params, adapter)
    merged = lora.merge(model.params, adapter)
    np.testing.assert_allclose(logits(model.config, merged, None), applied, atol=1e-4)
    assert np.abs(applied - logits(model.config, model.params, None)).max() > 0.1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        lora.unmerge(merged, adapter),
        model.params,
    )


def test_three_roles_share_one_program(model):
    step = jax.jit(lambda params, role: logits(model.config, params, role))
    roles = [filled(model.config, seed) for seed in range(3)]
    outputs = [np.asarray(step(model.params, role)) for role in roles * 2]
    assert step._cache_size() == 1
    for i, role in enumerate(roles):
        merged = logits(model.config, lora.merge(model.params, role), None)
        np.testing.assert_allclose(outputs[i], merged, atol=1e-4)
        np.testing.assert_array_equal(outputs[i], outputs[i + 3])
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


def test_an_adapter_is_an_argument_not_a_constant(model):
    """A known port froze adapters into its step; here a gradient through jit reaches them."""
    adapter = filled(model.config, 2)
    gradient = jax.grad(lambda a: logits(model.config, model.params, a).std())(adapter)
    assert gradient.scale == adapter.scale
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("targets", [lora.TARGETS, ("q", "v"), ("down",)])
def test_peft_computes_the_same_from_what_we_write(family, tmp_path, targets):
    make, model = family
    adapter = filled(model.config, 4, rank=3, alpha=6.0, targets=targets)
    save_adapter(adapter, model.config, tmp_path, base="base", rank=3, alpha=6.0, targets=targets)
    reference = theirs(peft.PeftModel.from_pretrained(make(), tmp_path))
    np.testing.assert_allclose(
        logits(model.config, model.params, adapter), reference, atol=1e-4, rtol=0
    )


def test_our_files_return_unchanged(model, tmp_path):
    adapter = filled(model.config, 5)
    save_adapter(adapter, model.config, tmp_path, base="b", rank=4, alpha=6.0, targets=lora.TARGETS)
    again = load_adapter(tmp_path, model.config)
    assert again.scale == adapter.scale
    jax.tree.map(np.testing.assert_array_equal, again, adapter)
    names = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight" in names
    assert "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight" in names
    assert len(names) == 2 * 7 * 2


def peft_model(tiny_llama, **settings):
    torch.manual_seed(1)
    defaults = {"r": 5, "lora_alpha": 7, "target_modules": ["q_proj", "o_proj", "up_proj"]}
    fields: dict[str, Any] = {"task_type": "CAUSAL_LM", **defaults, **settings}
    wrapped = peft.get_peft_model(tiny_llama(), peft.LoraConfig(**fields))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return wrapped


def test_we_compute_the_same_from_what_peft_writes(family, tmp_path):
    make, model = family
    wrapped = peft_model(make)
    wrapped.save_pretrained(tmp_path)
    ours = logits(model.config, model.params, load_adapter(tmp_path, model.config))
    np.testing.assert_allclose(ours, theirs(wrapped), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"use_rslora": True}, "use_rslora"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens"),
    ],
)
def test_what_goes_beyond_plain_lora_is_refused_by_name(
    model, tiny_llama, tmp_path, settings, field
):
    peft_model(tiny_llama, **settings).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=field):
        load_adapter(tmp_path, model.config)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"hidden_size": 64}, "64"),
        ({"intermediate_size": 24}, "48"),
        ({"num_hidden_layers": 3}, "2 l"),
    ],
)
def test_an_adapter_for_another_base_is_refused(model, tiny_llama, tmp_path, fields, shape):
    wrapped = peft_model(lambda: tiny_llama(**fields), target_modules=["up_proj"])
    wrapped.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"up_proj.*{shape}"):
        load_adapter(tmp_path, model.config)


def test_damaged_adapters_are_refused(model, tmp_path):
    def write():
        save_adapter(
            filled(model.config, 0, targets=["q"]),
            model.config,
            tmp_path,
            base="b",
            rank=4,
            alpha=6.0,
            targets=["q"],
        )

    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    write()
    damage(tmp_path, name, None)
    with pytest.raises(ValueError, match=r"layer 0 q_proj lacks lora_B"):
        load_adapter(tmp_path, model.config)
    write()
    damage(tmp_path, name, np.ones((32, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape("lora_B.weight")):
        load_adapter(tmp_path, model.config)
    write()
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 0}))
    with pytest.raises(ValueError, match="r: 0"):
        load_adapter(tmp_path, model.config)
    write()
    weights = tmp_path / "adapter_model.safetensors"
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model\.bin: pickled"):
        load_adapter(tmp_path, model.config)


def test_writing_refuses_an_adapter_that_is_not_what_is_said(model, tmp_path):
    adapter = filled(model.config, 0, rank=4, alpha=6.0)
    save = partial(save_adapter, adapter, model.config, tmp_path, base="b", targets=["q"])
    with pytest.raises(ValueError, match="scale"):
        save(rank=4, alpha=8.0)
    with pytest.raises(ValueError, match="shape"):
        save(rank=2, alpha=3.0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"rank": 0}, "rank"),
        ({"targets": ["embed"]}, "embed"),
        ({"targets": []}, "empty"),
    ],
)
def test_impossible_adapters_are_refused(model, arguments, word):
    with pytest.raises(ValueError, match=word):
        lora.init(model.config, jax.random.key(0), **({"rank": 2, "alpha": 2.0} | arguments))


def test_adapters_stay_in_float32_beside_a_bfloat16_base(tiny_directory):
    half = load(tiny_directory, jnp.bfloat16)
    adapter = filled(half.config, 7)
    applied = np.asarray(logits(half.config, half.params, adapter))
    merged = lora.merge(half.params, adapter)
    assert merged["layers"][0]["q"]["kernel"].dtype == jnp.bfloat16
    close = np.asarray(logits(half.config, merged, None))
    assert np.abs(applied - close).mean() < 0.03 * np.abs(applied).max()
