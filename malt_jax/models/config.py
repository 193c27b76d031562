"""The shape of a Llama or of a family that differs from it in a few switches, read from a Hugging
Face `config.json`; what the port cannot do is refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Family = Literal["llama", "mistral", "qwen2", "qwen3"]
"""A family is what transformers calls `model_type`. Qwen2 is Qwen2.5 as well."""

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_ARCHITECTURES: dict[Family, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What a field that is not there means, as in transformers 5.
_COMMON: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
}
_QWEN: dict[str, Any] = {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_DEFAULTS: dict[Family, dict[str, Any]] = {
    "llama": {"vocab_size": 32_000, "intermediate_size": 11_008, "max_position_embeddings": 2048},
    "mistral": {
        "vocab_size": 32_000,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
}


@dataclass(frozen=True)
class Rope:
    """Rotary embedding settings; `factor` and what follows it scale the frequencies (Llama 3.1)."""

    theta: float = 10_000.0
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class LlamaConfig:
    """Everything the forward pass needs to know; hashable, so that it can be a static argument of
    `jax.jit`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context: int
    norm_eps: float
    rope: Rope
    activation: Activation = "silu"
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    family: Family = "llama"
    window: int | None = None  # tokens; never below `context`, so attention need not know it

    @property
    def qkv_bias(self) -> bool:
        """Whether q, k and v have biases; o has one by `attention_bias` alone."""
        return self.attention_bias or self.family == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Whether the queries and keys of each head are RMS-normed before they are rotated."""
        return self.family == "qwen3"

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "LlamaConfig":
        """Reads the dictionary of a transformers config whose model_type is a `Family` (the v4 and
        v5 layouts of the RoPE fields).

        A Mistral's context ends with its sliding window, inside which its attention is full
        attention. Raises ValueError naming the field for anything transformers would compute
        differently. Dropout is not refused: it is never applied here, as in transformers'
        evaluation mode.
        """
        family: Family = config.get("model_type", "llama")
        if family not in _DEFAULTS:
            raise ValueError(
                f"config.model_type: {family!r} is not supported; the port reads the dense models"
                f" of {', '.join(get_args(Family))}"
            )
        get = _Fields(config, _COMMON | _DEFAULTS[family])
        if config.get("quantization_config"):
            raise ValueError("config.quantization_config: quantised weights need to be GGUF")
        act = get.value("hidden_act")
        if act not in _ACTIVATIONS:
            raise ValueError(f"config.hidden_act: {act!r} is not one of {sorted(_ACTIVATIONS)}")
        heads, hidden = get.positive("num_attention_heads"), get.positive("hidden_size")
        kv_heads = get.positive("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ValueError(
                f"config.num_key_value_heads: {kv_heads} does not divide "
                f"num_attention_heads {heads}"
            )
        head_dim = get.positive("head_dim", hidden // heads)
        if head_dim % 2:
            raise ValueError(f"config.head_dim: {head_dim} is odd; rotary embeddings need pairs")
        context, window = get.positive("max_position_embeddings"), None
        if family == "mistral" and get.value("sliding_window") is not None:
            window = get.positive("sliding_window")
        elif family in ("qwen2", "qwen3"):
            _check_layers_see_all(get, context)
        return cls(
            vocab_size=get.positive("vocab_size"),
            hidden_size=hidden,
            intermediate_size=get.positive("intermediate_size"),
            num_layers=get.positive("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            context=context if window is None else min(context, window),
            norm_eps=_number("rms_norm_eps", get.value("rms_norm_eps")),
            rope=_rope(config, context),
            activation=_ACTIVATIONS[act],
            tied=bool(get.value("tie_word_embeddings")),
            attention_bias=family in ("llama", "qwen3") and bool(get.value("attention_bias")),
            mlp_bias=family == "llama" and bool(get.value("mlp_bias")),
            family=family,
            window=window,
        )

    def to_hf(self) -> dict[str, Any]:
        """The same settings as the dictionary of the family's transformers config.

        The RoPE fields stand in both layouts: readers of the older one (transformers 4, vLLM and
        others) know `rope_theta` and `rope_scaling` alone and take 10,000 and none in silence where
        those are missing.
        """
        rope: dict[str, Any] = {"rope_type": self.rope.kind, "rope_theta": self.rope.theta}
        if self.rope.kind != "default":
            rope["factor"] = self.rope.factor
        if self.rope.kind == "llama3":
            rope |= {
                "low_freq_factor": self.rope.low_freq_factor,
                "high_freq_factor": self.rope.high_freq_factor,
                "original_max_position_embeddings": self.rope.original_context,
            }
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        switches: dict[str, Any] = {}
        if self.family in ("llama", "qwen3"):
            switches["attention_bias"] = self.attention_bias
        if self.family == "llama":
            switches["mlp_bias"] = self.mlp_bias
        if self.family == "mistral":  # left out it would mean 4096
            switches["sliding_window"] = self.window
        return {
            "architectures": [_ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_eps,
            "rope_parameters": rope,
            "rope_theta": self.rope.theta,
            "rope_scaling": None if self.rope.kind == "default" else scaling,
            "hidden_act": "gelu_pytorch_tanh"
            if self.activation == "gelu_tanh"
            else self.activation,
            "tie_word_embeddings": self.tied,
            **switches,
        }


@dataclass(frozen=True)
class _Fields:
    """Reads fields; a null stands for what is derived from others, as transformers writes it."""

    config: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def value(self, name: str, derived: Any = None) -> Any:
        value = self.config.get(name, self.defaults.get(name))
        return derived if value is None else value

    def positive(self, name: str, derived: int | None = None) -> int:
        value = self.value(name, derived)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"config.{name}: {value!r} is not a positive whole number")
        return value


def _check_layers_see_all(get: _Fields, context: int) -> None:
    """Raises ValueError if some layers of a Qwen would not see the whole context."""
    window = get.value("sliding_window") if get.value("use_sliding_window") else None
    kinds = get.value("layer_types")
    if kinds is None:
        full = window is None or get.value("max_window_layers") >= get.value("num_hidden_layers")
        kinds = ["full_attention" if full else "sliding_attention"]
    if others := set(kinds) - {"full_attention", "sliding_attention"}:
        raise ValueError(f"config.layer_types: {others.pop()!r} is not supported")
    if "sliding_attention" in kinds and (window is None or window < context):
        raise ValueError(
            f"config.use_sliding_window: layers that see {window} tokens of {context} are not"
            " supported; lower max_position_embeddings to sliding_window, inside which they see all"
        )


def _rope(config: Mapping[str, Any], context: int) -> Rope:
    scaling: Mapping[str, Any] = {
        **(config.get("rope_scaling") or {}),
        **(config.get("rope_parameters") or {}),
    }
    theta = _number("rope_theta", scaling.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    partial = scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if float(partial) != 1.0:
        raise ValueError("config.rope_parameters.partial_rotary_factor: only 1.0 is supported")
    if kind == "default":
        return Rope(theta)
    if kind not in ("linear", "llama3"):
        raise ValueError(
            f"config.rope_parameters.rope_type: {kind!r} is not one of 'default', 'linear', "
            "'llama3'; where it was only added to stretch the context, as for Qwen, remove it"
        )
    needed = ["factor"]
    if kind == "llama3":
        needed += ["low_freq_factor", "high_freq_factor"]
    if missing := [name for name in needed if scaling.get(name) is None]:
        raise ValueError(f"config.rope_parameters.{missing[0]}: needed by rope_type {kind!r}")
    if kind == "linear":
        return Rope(theta, "linear", _number("rope_parameters.factor", scaling["factor"]))
    factor, low, high = (_number(f"rope_parameters.{name}", scaling[name]) for name in needed)
    # Transformers lets the config's own field win over that of the RoPE fields.
    field = "original_max_position_embeddings"
    original = config.get(field) or scaling.get(field) or context
    return Rope(theta, "llama3", factor, low, high, int(_number(field, original)))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise ValueError(f"config.{name}: {value!r} is not a positive number")
    return float(value)
