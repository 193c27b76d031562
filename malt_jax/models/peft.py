"""Adapters on disk as PEFT writes them, so that `peft` and vLLM load ours and we load theirs.

PEFT keeps A as [r, in] and B as [out, r]; here they are [in, r] and [r, out].
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from malt_jax.models import lora
from malt_jax.models.config import LlamaConfig
from malt_jax.models.hf import PICKLED, check_header
from malt_jax.models.lora import Adapter
from malt_jax.models.weights import LAYER_NAMES
from malt_jax.workdir.storage import check_regular, read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_MAX_ALPHA = 1e6  # published ones stay below 1,000
_PREFIX = "base_model.model."
_MODULES = {target: LAYER_NAMES[target].split(".")[1] for target in lora.TARGETS}
_NAME = re.compile(
    re.escape(_PREFIX) + r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_(A|B)\.weight"
)
# What changes an adapter's meaning beyond y = x W + (alpha / r) (x A) B, with the value that does
# not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "velora_config": (None,),
    # The other initialisations change the base weights as well.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}


def save_adapter(
    adapter: Adapter,
    config: LlamaConfig,
    path: Path,
    *,
    base: str,
    rank: int,
    alpha: float,
    targets: Sequence[str],
) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` into the directory `path`.

    `base` is what users load the adapter onto. Raises ValueError if the adapter's shapes or scale
    are not those of `rank`, `alpha` and `targets`.
    """
    if adapter.scale != alpha / rank:
        raise ValueError(f"adapter: scale {adapter.scale} is not alpha / rank = {alpha / rank}")
    named = {}
    for i in range(config.num_layers):
        for target in targets:
            pair = adapter.layers[i][target]
            for letter in ("a", "b"):
                expected = _shape(config, target, letter, rank)
                if pair[letter].shape != expected:
                    raise ValueError(
                        f"adapter: layer {i} {target}.{letter} has shape {pair[letter].shape},"
                        f" expected {expected}"
                    )
                name = (
                    f"{_PREFIX}model.layers.{i}.{LAYER_NAMES[target]}.lora_{letter.upper()}.weight"
                )
                named[name] = np.ascontiguousarray(np.asarray(pair[letter], np.float32).T)
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": [_MODULES[target] for target in targets],
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    # The library's own `save_file` gives a file that only its owner may read, whatever the umask.
    (path / WEIGHTS).write_bytes(save(named, metadata={"format": "pt"}))


def load_adapter(path: Path, config: LlamaConfig) -> Adapter:
    """Reads a PEFT LoRA directory for a base of this shape.

    Raises ValueError naming the field for what goes beyond plain LoRA, and naming the tensor for
    one that is missing, unexpected, made for a base of another size, or not finite.
    """
    fields = read_json(path / CONFIG)
    for name, plain in _PLAIN.items():
        if name in fields and fields[name] not in plain:
            raise ValueError(f"{path / CONFIG}: {name}: {fields[name]!r} is not supported")
    rank: Any = fields.get("r")
    alpha: Any = fields.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{path / CONFIG}: r: {rank!r} is not a positive whole number")
    real = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not real or not 0 < alpha < _MAX_ALPHA:
        raise ValueError(
            f"{path / CONFIG}: lora_alpha: {alpha!r} is not a number between 0 and {_MAX_ALPHA:g}"
        )
    layers: dict[int, dict[str, dict[str, Any]]] = {}
    for name, array in _tensors(path).items():
        i, target, letter = _place(name, path)
        expected = _shape(config, target, letter, rank)
        if i >= config.num_layers or array.shape[::-1] != expected:
            raise ValueError(
                f"{name} in {path / WEIGHTS}: shape {array.shape} does not fit a base of"
                f" {config.num_layers} layers that expects {expected[::-1]}"
            )
        matrix = array.T.astype(np.float32)
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name} in {path / WEIGHTS}: holds NaN or infinity")
        layers.setdefault(i, {}).setdefault(target, {})[letter] = jnp.asarray(matrix)
    for i, targets in layers.items():
        for target, pair in targets.items():
            if lacking := {"a", "b"} - pair.keys():
                raise ValueError(
                    f"{path / WEIGHTS}: layer {i} {_MODULES[target]} lacks"
                    f" lora_{lacking.pop().upper()}"
                )
    if not layers:
        raise ValueError(f"{path / WEIGHTS}: holds no tensors")
    return Adapter(layers, alpha / rank)


def _tensors(path: Path) -> Mapping[str, np.ndarray]:
    file = path / WEIGHTS
    check_regular(file)
    if not file.exists():
        if pickled := sorted(p.name for p in path.iterdir() if p.suffix in PICKLED):
            raise ValueError(
                f"{path / pickled[0]}: pickled weights can run code and are refused; save the"
                f" adapter with PEFT's safe_serialization=True, which writes {WEIGHTS}"
            )
        raise ValueError(f"{file}: no such file")
    try:
        arrays = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: not a readable safetensors file: {error}") from None
    check_header(file)
    return arrays


def _place(name: str, path: Path) -> tuple[int, str, str]:
    """Layer, target and matrix ("a" or "b") of a tensor's name."""
    match = _NAME.fullmatch(name)
    targets = {module: target for target, module in _MODULES.items()}
    if match is None or match[2] not in targets:
        raise ValueError(f"{name} in {path / WEIGHTS}: not a LoRA matrix of a projection")
    return int(match[1]), targets[match[2]], match[3].lower()


def _shape(config: LlamaConfig, target: str, letter: str, rank: int) -> tuple[int, int]:
    fan_in, fan_out = lora.sizes(config, target)
    return (fan_in, rank) if letter == "a" else (rank, fan_out)
