"""The shape of a Llama, read from a Hugging Face `config.json`; what the port cannot do is
refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
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

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "LlamaConfig":
        """Reads the dictionary of a transformers `LlamaConfig` (the v4 and v5 layouts of the RoPE
        fields).

        Raises ValueError naming the field for anything `LlamaForCausalLM` would compute
        differently. Dropout is not refused: it is never applied here, as in transformers'
        evaluation mode.
        """
        get = _Fields(config)
        if (kind := config.get("model_type", "llama")) != "llama":
            raise ValueError(
                f"config.model_type: {kind!r} is not supported; the port reads 'llama'"
            )
        if config.get("quantization_config"):
            raise ValueError("config.quantization_config: quantised weights need to be GGUF")
        act = config.get("hidden_act", "silu")
        if act not in _ACTIVATIONS:
            raise ValueError(f"config.hidden_act: {act!r} is not one of {sorted(_ACTIVATIONS)}")
        heads = get.positive("num_attention_heads", 32)
        hidden = get.positive("hidden_size", 4096)
        kv_heads = get.positive("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ValueError(
                f"config.num_key_value_heads: {kv_heads} does not divide "
                f"num_attention_heads {heads}"
            )
        head_dim = get.positive("head_dim", hidden // heads)
        if head_dim % 2:
            raise ValueError(f"config.head_dim: {head_dim} is odd; rotary embeddings need pairs")
        return cls(
            vocab_size=get.positive("vocab_size", 32_000),
            hidden_size=hidden,
            intermediate_size=get.positive("intermediate_size", 11_008),
            num_layers=get.positive("num_hidden_layers", 32),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            context=get.positive("max_position_embeddings", 2048),
            norm_eps=float(get.value("rms_norm_eps", 1e-6)),
            rope=_rope(config, get.positive("max_position_embeddings", 2048)),
            activation=_ACTIVATIONS[act],
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
        )

    def to_hf(self) -> dict[str, Any]:
        """The same settings as a transformers `LlamaConfig` dictionary (v5 layout)."""
        rope: dict[str, Any] = {"rope_type": self.rope.kind, "rope_theta": self.rope.theta}
        if self.rope.kind != "default":
            rope["factor"] = self.rope.factor
        if self.rope.kind == "llama3":
            rope |= {
                "low_freq_factor": self.rope.low_freq_factor,
                "high_freq_factor": self.rope.high_freq_factor,
                "original_max_position_embeddings": self.rope.original_context,
            }
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
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
            "hidden_act": "gelu_pytorch_tanh"
            if self.activation == "gelu_tanh"
            else self.activation,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
        }


@dataclass(frozen=True)
class _Fields:
    """Reads fields; null counts as absent, since transformers writes null for a derived default."""

    config: Mapping[str, Any]

    def value(self, name: str, default: Any) -> Any:
        found = self.config.get(name)
        return default if found is None else found

    def positive(self, name: str, default: int) -> int:
        found = self.value(name, default)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise ValueError(f"config.{name}: {found!r} is not a positive whole number")
        return found


def _rope(config: Mapping[str, Any], context: int) -> Rope:
    scaling: Mapping[str, Any] = {
        **(config.get("rope_scaling") or {}),
        **(config.get("rope_parameters") or {}),
    }
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    partial = scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if float(partial) != 1.0:
        raise ValueError("config.rope_parameters.partial_rotary_factor: only 1.0 is supported")
    if kind == "default":
        return Rope(theta)
    if kind not in ("linear", "llama3"):
        raise ValueError(
            f"config.rope_parameters.rope_type: {kind!r} is not one of 'default', 'linear', "
            "'llama3'"
        )
    needed = ["factor"]
    if kind == "llama3":
        needed += ["low_freq_factor", "high_freq_factor"]
    if missing := [name for name in needed if scaling.get(name) is None]:
        raise ValueError(f"config.rope_parameters.{missing[0]}: needed by rope_type {kind!r}")
    if kind == "linear":
        return Rope(theta, "linear", float(scaling["factor"]))
    return Rope(
        theta,
        "llama3",
        float(scaling["factor"]),
        float(scaling["low_freq_factor"]),
        float(scaling["high_freq_factor"]),
        int(scaling.get("original_max_position_embeddings") or context),
    )
