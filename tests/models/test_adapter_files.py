"""Adapter files that are not in order: each is refused in a line that names the file."""

import json
import os

import numpy as np
import pytest
from adapters import damage, filled
from safetensors.numpy import load_file

from malt_jax.models import load, lora
from malt_jax.models.peft import load_adapter, save_adapter


@pytest.fixture(scope="module")
def model(tiny_directory):
    return load(tiny_directory)


@pytest.mark.parametrize(
    "text",
    [
        '"r": 0',
        '"r": true',
        '"r": 4.0',
        '"r": null',
        '"lora_alpha": 0',
        '"lora_alpha": -16',
        '"lora_alpha": 1e30',
        '"lora_alpha": NaN',
        '"lora_alpha": Infinity',
        '"lora_alpha": true',
        '"r": 4, "lora_alpha": 6.0',
    ],
)
def test_numbers_out_of_range_and_fields_that_stand_twice_are_named(model, tmp_path, text):
    adapter = filled(model.config, 5)
    save_adapter(adapter, model.config, tmp_path, base="b", rank=4, alpha=6.0, targets=lora.TARGETS)
    file = tmp_path / "adapter_config.json"
    fields = json.loads(file.read_text())
    name = text.split('"')[1]
    if "," not in text:
        del fields[name]
    file.write_text(json.dumps(fields)[:-1] + f", {text}}}")
    with pytest.raises(ValueError, match=rf"adapter_config.json: .*{name}") as caught:
        load_adapter(tmp_path, model.config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_adapter_that_is_not_finite_is_refused(model, tmp_path, value):
    adapter = filled(model.config, 5)
    save_adapter(adapter, model.config, tmp_path, base="b", rank=4, alpha=6.0, targets=lora.TARGETS)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    array = load_file(tmp_path / "adapter_model.safetensors")[name]
    array[-1, -1] = value
    damage(tmp_path, name, array)
    with pytest.raises(ValueError, match=rf"{name} in .*adapter_model.safetensors: holds NaN or"):
        load_adapter(tmp_path, model.config)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_fifo_is_not_waited_for(model, tmp_path, name):
    adapter = filled(model.config, 5)
    save_adapter(adapter, model.config, tmp_path, base="b", rank=4, alpha=6.0, targets=lora.TARGETS)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: not a regular file"):
        load_adapter(tmp_path, model.config)
