"""The settings of a run: plain config data checked once, before anything is loaded, then passed
as frozen dataclasses.

Every field is explained where its default lives: `configs/base.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, make_dataclass
from typing import Any, Literal, get_type_hints

from malt_jax.config.phase import PhaseSettings
from malt_jax.config.schema import faults
from malt_jax.config.typed import build


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
    phases: Mapping[str, PhaseSettings]  # by name; in a config each is a group beside the others
    wandb: str
    eval: EvalSettings
    mesh: MeshSettings

    def as_config(self) -> dict[str, Any]:
        """The plain nested dictionary that `parse` makes these settings of."""
        config = asdict(self)
        return config | config.pop("phases")

    @property
    def branching(self) -> tuple[int, ...]:
        """Children a parent along the chain."""
        return tuple(self.roles[name].branching for name in self.chain)


def parse(config: Mapping[str, Any], phases: Mapping[str, type[PhaseSettings]]) -> Settings:
    """Checks a resolved config (a plain nested dictionary). `phases` says of which type each
    phase's group is; `malt_jax.recipe.parse` knows those of the package.

    Raises ValueError naming the key for an unknown or missing key, a value of the wrong type, or
    a value with which no run can succeed.
    """
    hints = get_type_hints(Settings)
    del hints["phases"]
    read = build(make_dataclass("Config", [*hints.items(), *phases.items()]), config, "config")
    values = {name: getattr(read, name) for name in hints}
    settings = Settings(**values, phases={name: getattr(read, name) for name in phases})
    for key, ok, rule in _rules(settings):
        if not ok:
            raise ValueError(f"config.{key}: {rule}")
    for name, phase in settings.phases.items():
        for fault in faults(phase, f"config.{name}"):
            raise ValueError(fault)
    return settings


_COUNTS = ("train_questions", "skip_questions", "eval_questions")
_CAPS = ("max_positives_per_parent", "max_pairs_per_parent")


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
            (f"{key}.branching", role.branching > 0, "must be positive"),
            (f"{key}.max_new_tokens", role.max_new_tokens > 0, "must be positive"),
            (f"{key}.train", set(role.train) <= set(s.phases), f"phases are {list(s.phases)}"),
            (f"{key}.train", len(set(role.train)) == len(role.train), "names a phase twice"),
        ]
    together = {"eval.votes": s.eval.votes, "eval.debate.agents": s.eval.debate.agents}
    together |= {f"roles.{name}.branching": role.branching for name, role in s.roles.items()}
    for key, n in together.items():
        rules.append(("sample.rows", s.sample.rows >= n, f"too few: config.{key} is {n}"))
    for axis in ("data", "fsdp", "tensor"):
        size = getattr(s.mesh, axis)
        rules.append(
            (f"mesh.{axis}", size > 0 or (axis == "data" and size == 0), "must be positive")
        )
    return rules
