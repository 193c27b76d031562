"""Adapters from strangers whose files are not in order: refused by their name, in one line."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from malt_jax.models import Model, lora
from malt_jax.models.peft import load_adapter, save_adapter


def write(model: Model, directory: Path) -> None:
    """An adapter that loads."""
    adapter = lora.init(model.config, jax.random.key(5), rank=4, alpha=6.0)
    shape = {"rank": 4, "alpha": 6.0, "targets": lora.TARGETS}
    save_adapter(adapter, model.config, directory, base="b", **shape)
    load_adapter(directory, model.config)


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
    write(model, tmp_path)
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
    write(model, tmp_path)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    file = tmp_path / "adapter_model.safetensors"
    arrays = load_file(file)
    arrays[name][-1, -1] = value
    save_file(arrays, file)
    with pytest.raises(ValueError, match=rf"{name} in .*adapter_model.safetensors: holds NaN or"):
        load_adapter(tmp_path, model.config)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_fifo_is_not_waited_for(model, tmp_path, name):
    write(model, tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: not a regular file"):
        load_adapter(tmp_path, model.config)
