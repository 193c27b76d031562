"""Shapes that plans are made for."""

from dataclasses import replace

from malt_jax.config.lora import LoraSettings
from malt_jax.learn.phases import PHASES
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.plan.programs import Pass
from malt_jax.recipe import parse

CONFIG = LlamaConfig(1024, 256, 512, 2, 8, 4, 32, 512, 1e-5, Rope())


LORA = LoraSettings(8, 16.0, ("q", "k", "v", "o", "gate", "up", "down"))


GROUPS, CHILDREN, PROMPT, OWN, SIZE = 8, 4, 2, 1, 64


PASS = Pass(GROUPS * CHILDREN, (GROUPS * PROMPT, GROUPS * CHILDREN * OWN), 16, 9, CHILDREN, SIZE, 3)


def phase(name: str, **changes):
    """A phase and its settings."""
    from configs.base import get_config

    config = get_config()
    config.workdir = config.model.path = "x"
    chosen = parse(config.to_dict()).phases[name]
    return PHASES[name], replace(chosen, **{"remat": "keep_all"} | changes)
