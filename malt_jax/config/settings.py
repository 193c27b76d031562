"""The settings of a run: plain config data checked once, before anything is loaded, then passed
as frozen dataclasses.

Every field is explained where its default lives: `configs/base.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from malt_jax.config.typed import build

PHASES = ("sft", "dpo", "kto")


@dataclass(frozen=True)
class ModelSettings:
    path: str
    dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class DataSettings:
    task: str
    train: str
    eval: str
    exclude: tuple[str, ...]
    train_questions: int
    skip_questions: int
    eval_questions: int
    max_chars: int


@dataclass(frozen=True)
class RoleSettings:
    prompt: str
    branching: int
    max_new_tokens: int
    train: tuple[str, ...]
    adapter: str


@dataclass(frozen=True)
class SampleSettings:
    temperature: float
    top_k: int
    top_p: float
    rows: int
    kv_gib: float
    questions_per_shard: int


@dataclass(frozen=True)
class CreditSettings:
    threshold: float
    shuffle_rewards: bool
    max_positives_per_parent: int
    max_pairs_per_parent: int


@dataclass(frozen=True)
class LoraSettings:
    rank: int
    alpha: float
    targets: tuple[Literal["q", "k", "v", "o", "gate", "up", "down"], ...]


@dataclass(frozen=True)
class PhaseSettings:
    learning_rate: float
    batch: int
    accumulate: int
    epochs: int
    warmup: float
    weight_decay: float
    clip_norm: float
    held_out: float
    eval_every: int
    patience: int
    max_nonfinite: int
    checkpoint_every: int
    remat: Literal["keep_all", "keep_products", "keep_inputs"]


@dataclass(frozen=True)
class DpoSettings(PhaseSettings):
    beta: float
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "sigmoid_norm"]
    label_smoothing: float
    rpo_alpha: float


@dataclass(frozen=True)
class KtoSettings(PhaseSettings):
    beta: float
    desirable: float
    undesirable: float


@dataclass(frozen=True)
class DebateSettings:
    agents: int
    rounds: int
    prompt: str
    other: str


@dataclass(frozen=True)
class EvalSettings:
    systems: tuple[str, ...]
    single_agent: str
    votes: int
    equal_compute: bool
    critiques: bool
    debate: DebateSettings
    resamples: int


@dataclass(frozen=True)
class MeshSettings:
    data: int
    fsdp: int
    tensor: int


@dataclass(frozen=True)
class Settings:
    seed: int
    workdir: str
    suite: str
    trees: str
    model: ModelSettings
    data: DataSettings
    chain: tuple[str, ...]
    roles: Mapping[str, RoleSettings]
    sample: SampleSettings
    credit: CreditSettings
    lora: LoraSettings
    sft: PhaseSettings
    dpo: DpoSettings
    kto: KtoSettings
    wandb: str
    eval: EvalSettings
    mesh: MeshSettings

    def phase(self, name: str) -> PhaseSettings:
        """The settings of a training phase, one of `PHASES`."""
        phases: dict[str, PhaseSettings] = {"sft": self.sft, "dpo": self.dpo, "kto": self.kto}
        return phases[name]

    @property
    def branching(self) -> tuple[int, ...]:
        """Children a parent along the chain."""
        return tuple(self.roles[name].branching for name in self.chain)


def parse(config: Mapping[str, Any]) -> Settings:
    """Checks a resolved config (a plain nested dictionary).

    Raises ValueError naming the key for an unknown or missing key, a value of the wrong type, or
    a value with which no run can succeed.
    """
    settings = build(Settings, config, "config")
    for key, ok, rule in _rules(settings):
        if not ok:
            raise ValueError(f"config.{key}: {rule}")
    return settings


_COUNTS = ("train_questions", "skip_questions", "eval_questions")
_CAPS = ("max_positives_per_parent", "max_pairs_per_parent")
_POSITIVE = (
    *("learning_rate", "batch", "accumulate", "epochs", "clip_norm"),
    *("eval_every", "max_nonfinite", "checkpoint_every"),
)


def _rules(s: Settings) -> list[tuple[str, bool, str]]:
    """(key, holds, what to do) for every value that the types alone let through."""
    rules = [
        ("workdir", bool(s.workdir), "empty; name a directory for the results"),
        ("model.path", bool(s.model.path), "empty; a directory, a .gguf file or a hub id"),
        ("seed", s.seed >= 0, "must not be negative"),
        *((f"data.{name}", getattr(s.data, name) >= 0, "must be 0 or a count") for name in _COUNTS),
        ("data.max_chars", s.data.max_chars > 0, "must be positive"),
        ("chain", bool(s.chain), "empty; name at least one role"),
        ("chain", len(set(s.chain)) == len(s.chain), "names a role twice"),
        ("sample.temperature", s.sample.temperature >= 0, "must not be negative (0 is greedy)"),
        ("sample.top_k", s.sample.top_k >= 0, "must not be negative (0 is off)"),
        ("sample.top_p", 0 < s.sample.top_p <= 1, "must be in (0, 1] (1 is off)"),
        ("sample.kv_gib", s.sample.kv_gib >= 0, "must not be negative (0 takes what is free)"),
        ("sample.questions_per_shard", s.sample.questions_per_shard > 0, "must be positive"),
        (
            "credit.threshold",
            0 <= s.credit.threshold < 1,
            "must be in [0, 1): labels are value > it",
        ),
        *((f"credit.{key}", getattr(s.credit, key) > 0, "must be positive") for key in _CAPS),
        ("lora.rank", s.lora.rank > 0, "must be positive"),
        ("lora.alpha", s.lora.alpha > 0, "must be positive"),
        ("lora.targets", bool(s.lora.targets), "empty; name at least one projection"),
        ("dpo.beta", s.dpo.beta > 0, "must be positive"),
        ("dpo.rpo_alpha", s.dpo.rpo_alpha >= 0, "must not be negative (0 is off)"),
        (
            "dpo.label_smoothing",
            0 <= s.dpo.label_smoothing < 0.5,
            "is the share of flipped labels, in [0, 0.5)",
        ),
        (
            "dpo.label_smoothing",
            s.dpo.label_smoothing == 0 or s.dpo.loss == "robust",
            "only config.dpo.loss='robust' takes it; give 0 or that loss",
        ),
        ("kto.beta", s.kto.beta > 0, "must be positive"),
        ("kto.desirable", s.kto.desirable > 0, "must be positive"),
        ("kto.undesirable", s.kto.undesirable > 0, "must be positive"),
        (
            "kto.accumulate",
            s.kto.accumulate == 1,
            "must be 1: KTO's reference point is a mean over the whole optimiser step; raise "
            "config.kto.batch instead",
        ),
        ("eval.votes", s.eval.votes > 0, "must be positive"),
        ("eval.debate.agents", s.eval.debate.agents > 1, "a debate needs two"),
        ("eval.debate.rounds", s.eval.debate.rounds > 0, "must be positive"),
        (
            "eval.debate.prompt",
            all(field in s.eval.debate.prompt for field in ("{question}", "{others}")),
            "does not show the {question} and the {others}",
        ),
        ("eval.debate.other", "{other}" in s.eval.debate.other, "does not show the {other}"),
        ("eval.resamples", s.eval.resamples > 0, "must be positive"),
    ]
    for place in s.data.exclude:
        rules.append(("data.exclude", ":" in place, f"{place!r} is not of the form TASK:PATH"))
    for name in s.chain:
        rules.append(("chain", name in s.roles, f"{name!r} is not described in config.roles"))
    for name, role in s.roles.items():
        key = f"roles.{name}"
        rules += [
            (
                key,
                name not in ("merged", "sft"),
                "a folder of export/ has that name; choose another",
            ),
            (f"{key}.branching", role.branching > 0, "must be positive"),
            (f"{key}.max_new_tokens", role.max_new_tokens > 0, "must be positive"),
            (f"{key}.train", set(role.train) <= set(PHASES), f"phases are {list(PHASES)}"),
            (f"{key}.train", role.train[:1] != ("dpo",), "dpo needs the sft policy before it"),
            (f"{key}.train", len(set(role.train)) == len(role.train), "names a phase twice"),
        ]
    together = {"eval.votes": s.eval.votes, "eval.debate.agents": s.eval.debate.agents}
    together |= {f"roles.{name}.branching": role.branching for name, role in s.roles.items()}
    for key, n in together.items():
        rules.append(("sample.rows", s.sample.rows >= n, f"too few: config.{key} is {n}"))
    for phase in PHASES:
        p = s.phase(phase)
        rules += [
            *((f"{phase}.{key}", getattr(p, key) > 0, "must be positive") for key in _POSITIVE),
            (f"{phase}.warmup", 0 <= p.warmup < 1, "is a fraction of the steps, in [0, 1)"),
            (f"{phase}.weight_decay", p.weight_decay >= 0, "must not be negative"),
            (f"{phase}.held_out", 0 <= p.held_out < 1, "is a share of questions, in [0, 1)"),
            (f"{phase}.patience", p.patience >= 0, "must not be negative (0 is off)"),
        ]
    for axis in ("data", "fsdp", "tensor"):
        size = getattr(s.mesh, axis)
        rules.append(
            (f"mesh.{axis}", size > 0 or (axis == "data" and size == 0), "must be positive")
        )
    return rules
