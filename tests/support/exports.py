"""What exports are compared with: PEFT's numbers, and bases and tokenizers that only look the
same."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from recipes import change, good

from malt_jax import models
from malt_jax.config import settings
from malt_jax.models import hf, llama, lora
from malt_jax.recipe import parse

TOKENS = np.random.default_rng(3).integers(0, 90, (2, 11))


SHAPE = {"lora__rank": 8, "lora__alpha": 16.0, "lora__targets": lora.TARGETS}
"""Of the adapters of `drawn`."""
PEFTS_SHAPE = {"lora__rank": 5, "lora__alpha": 7.0, "lora__targets": ("up", "q")}


def recipe(base: Path, **changes) -> settings.Settings:
    config = change(good(), "model.path", str(base))
    config["roles"]["generator"]["train"] = ("sft",)  # as in the paper
    for key, value in (SHAPE | changes).items():
        change(config, key.replace("__", "."), value)
    return parse(config)


def drawn(model: models.Model, seed: int = 0, rank: int = 8, alpha: float = 16.0) -> lora.Adapter:
    """An adapter of the recipe's shape with B drawn as well, large enough to show in the logits."""
    adapter = lora.init(model.config, jax.random.key(seed), rank=rank, alpha=alpha)
    return jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(seed), x.shape), adapter
    )


def logits(model: models.Model, adapter: lora.Adapter | None) -> np.ndarray:
    hidden, _ = llama.forward(model.config, model.params, TOKENS, np.ones_like(TOKENS), adapter)
    return np.asarray(llama.unembed(model.config, model.params, hidden))


def theirs(base: Path, adapter: Path | None = None) -> np.ndarray:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        reference = pytest.importorskip("peft").PeftModel.from_pretrained(reference, adapter)
    with torch.no_grad():
        return reference.eval()(torch.tensor(TOKENS)).logits.numpy()


def made_elsewhere(base: Path, directory: Path, dtype: str = "float32", **fields) -> np.ndarray:
    """A random adapter made and written by PEFT itself; the logits under it."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    shape = {"r": 5, "lora_alpha": 7, "target_modules": ["q_proj", "up_proj"]} | fields
    wrapped = peft.get_peft_model(loaded, peft.LoraConfig(task_type="CAUSAL_LM", **shape)).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
            parameter.data = parameter.data.to(getattr(torch, dtype)).float()
    with torch.no_grad():
        reference = wrapped(torch.tensor(TOKENS)).logits.numpy()
    wrapped.to(getattr(torch, dtype)).save_pretrained(directory)
    return reference


def another_base(directory: Path) -> models.Model:
    base_model = small.model(seed=1, scale=4.0)
    hf.save(directory, base_model.config, base_model.params)
    small.tokenizer().save(directory)
    return models.load(directory)


def another_tokenizer(base: Path, directory: Path) -> models.Model:
    """The same weights; two letters have changed their ids."""
    base_model = models.load(base)
    hf.save(directory, base_model.config, base_model.params)
    small.tokenizer().save(directory)
    file = directory / "tokenizer.json"
    blueprint = json.loads(file.read_text())
    vocabulary = blueprint["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(blueprint))
    return models.load(directory)
