"""The settings of a run: every one with its default, what it means and which values are refused.

A config is plain data, checked once before anything is loaded and then passed as these frozen
dataclasses. The defaults are the paper's choices where it states them (arXiv 2412.01928); a
setting's documentation says where it does not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from malt_jax.config import prompts
from malt_jax.config.credit import CreditSettings
from malt_jax.config.evaluation import EvalSettings
from malt_jax.config.judging import JudgeSettings, RewardSettings
from malt_jax.config.lora import LoraSettings
from malt_jax.config.phase import PhaseSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.config.schema import (
    Checks,
    Rule,
    at_least,
    beside,
    filled,
    group,
    positive,
    setting,
)

_COUNT = at_least(0, "must be 0 or a count")
_READERS = "only roles of config.chain after its first read a solution; name those"


@dataclass(frozen=True)
class ModelSettings:
    """`config.model.*`: the base model, which all roles share."""

    path: str = setting(
        "",
        "a Hugging Face directory, a .gguf file or a hub id",
        filled("empty; a directory, a .gguf file or a hub id"),
    )
    dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "of the weights and of what is computed with them"
    )


@dataclass(frozen=True)
class DataSettings:
    """`config.data.*`: the questions."""

    task: str = setting(
        "",
        "gsm8k, math, csqa, mawps or svamp (both also with _equations), arithmetic, jsonl, "
        "humaneval, mbpp, codejsonl, judge, or FILE.py:NAME",
    )
    train: str = setting("", "a file or a hub id; empty: the task's own hub id")
    eval: str = setting("", "a file or a hub id; empty: the task's own hub id")
    exclude: tuple[str, ...] = setting(
        (), "more test sets, each TASK:PATH, that training must not overlap with"
    )
    train_questions: int = setting(0, "how many to train on; 0: all", _COUNT)
    skip_questions: int = setting(
        0, "training questions to pass over: those of a warm start, say", _COUNT
    )
    eval_questions: int = setting(0, "how many to evaluate on; 0: all", _COUNT)
    development_questions: int = setting(
        0, "training questions kept to choose settings on, and never trained on", _COUNT
    )
    seed: int = setting(
        -1, "of which questions are taken; -1: config.seed", at_least(-1, "must be -1 or a seed")
    )
    max_chars: int = setting(4000, "longer questions are dropped and reported", positive())
    score: Literal["all", "share"] = setting(
        "all", "of a program: 1 if it passes all tests, else 0; or the share that it passes"
    )
    sandbox: Literal["bubblewrap", "unprotected"] = setting(
        "bubblewrap",
        "where programs run; unprotected: as you, on your files and network, for machines that may "
        "be lost",
    )

    def rules(self) -> Checks:
        """Test sets are named with their task."""
        wrong = [place for place in self.exclude if ":" not in place]
        return [("exclude", False, f"{place!r} is not of the form TASK:PATH") for place in wrong]


@dataclass(frozen=True)
class RoleSettings:
    """`config.roles.ROLE.*`: one agent of the team."""

    prompt: str = setting(
        "",
        "shows {question}, {hint} (what kind of answer is asked for) and what earlier roles of the "
        "chain wrote, each by its name in braces",
    )
    branching: int = setting(3, "n: samples of each parent in a tree", positive())
    max_new_tokens: int = setting(
        300, "the most tokens of a sample; ours, the paper gives no lengths", positive()
    )
    train: tuple[str, ...] = setting(
        ("sft", "dpo"), "phases in order; () leaves the role at the base model"
    )
    adapter: str = setting(
        "", "a PEFT directory to train on from, or, if train is (), to evaluate; empty: none"
    )

    def rules(self) -> Checks:
        """A phase is gone through once."""
        once = len(set(self.train)) == len(self.train)
        return [("train", once, "names a phase twice")]


@dataclass(frozen=True)
class SampleSettings:
    """`config.sample.*`: how samples are drawn."""

    temperature: float = setting(
        0.3,
        "of trees and evaluation; 0 is greedy",
        at_least(0, "must not be negative (0 is greedy)"),
    )
    top_k: int = setting(
        0,
        "the most likely tokens to draw from; 0: all",
        at_least(0, "must not be negative (0 is off)"),
    )
    top_p: float = setting(
        1.0,
        "the share of probability to draw from; 1: all",
        Rule(lambda share: 0 < share <= 1, "must be in (0, 1] (1 is off)"),
    )
    rows: int = setting(96, "sequences decoded at a time, over all devices")
    kv_gib: float = setting(
        0.0,
        "the most memory of the KV cache on a device, in GiB; 0: 60% of what is free",
        at_least(0, "must not be negative (0 takes what is free)"),
    )
    questions_per_shard: int = setting(
        16, "trees committed at a time: what a kill can cost, and what hosts share out", positive()
    )


@dataclass(frozen=True)
class MeshSettings:
    """`config.mesh.*`: how the devices are laid out. Their product is the number of devices."""

    data: int = setting(
        0, "replicas of the weights; 0: as many as the devices that are left make", at_least(0)
    )
    fsdp: int = setting(1, "devices that share out each weight and gather it to use it", positive())
    tensor: int = setting(1, "devices that share out each product", positive())


def _team() -> dict[str, RoleSettings]:
    return {
        "generator": RoleSettings(prompts.GENERATOR, train=("sft",)),
        "verifier": RoleSettings(prompts.VERIFIER, max_new_tokens=200),
        "refiner": RoleSettings(prompts.REFINER),
    }


@dataclass(frozen=True)
class Settings:
    """`config.*`."""

    seed: int = setting(
        0, "of questions, samples, adapters and resampling", at_least(0, "must not be negative")
    )
    workdir: str = setting(
        "runs/base",
        "the directory of all that a run leaves, on a disk or in a bucket (gs://...)",
        filled("empty; name a directory for the results"),
    )
    suite: str = setting(
        "",
        "experiments around this run: protocol, paper_table1, ablations, sweeps, control, "
        "transfer, seeds, or several of them with commas between; empty: none",
    )
    suite_seeds: int = setting(
        3,
        "of suite protocol: seeds of sampling and training, from config.seed on",
        at_least(2, "an interval over seeds needs two; three are the protocol's"),
    )
    trees: str = setting(
        "",
        "another run's work directory to learn from instead of collecting trees: another "
        "threshold, shuffled rewards, a smaller n and a shorter chain need no new samples; "
        "empty: collect",
    )
    model: ModelSettings = group(ModelSettings, "the base model")
    data: DataSettings = group(DataSettings, "the questions")
    chain: tuple[str, ...] = setting(
        ("generator", "verifier", "refiner"),
        "the roles in order; each reads what those before it wrote",
        filled("empty; name at least one role"),
    )
    roles: Mapping[str, RoleSettings] = field(
        default_factory=_team, metadata={"doc": "the roles by name"}
    )
    sample: SampleSettings = group(SampleSettings, "how samples are drawn")
    judge: JudgeSettings = group(JudgeSettings, "who judges the answers of task judge")
    reward: RewardSettings = group(RewardSettings, "what an answer's score weighs")
    credit: CreditSettings = group(CreditSettings, "from rewards to what is learned from")
    lora: LoraSettings = group(LoraSettings, "the shape of the adapters")
    rounds: RoundsSettings = group(RoundsSettings, "how often trees are drawn and learned from")
    phases: Mapping[str, PhaseSettings] = beside("the training phases by name")
    wandb: str = setting(
        "", "a Weights & Biases project that training is logged to as well; empty: none"
    )
    eval: EvalSettings = group(EvalSettings, "what is compared")
    mesh: MeshSettings = group(MeshSettings, "the layout of the devices")

    def as_config(self) -> dict[str, Any]:
        """The plain nested dictionary that these settings are made of."""
        config = asdict(self)
        return config | config.pop("phases")

    @property
    def data_seed(self) -> int:
        """The seed that fixes which questions are taken, and their order."""
        return self.seed if self.data.seed < 0 else self.data.seed

    @property
    def trained(self) -> tuple[str, ...]:
        """The roles of the chain that are trained."""
        return tuple(name for name in self.chain if self.roles[name].train)

    def trainee(self, role: str) -> str:
        """The role whose phases and checkpoints are those of a trained role's adapter: itself, or
        where all share one the first with the most phases."""
        if not self.lora.shared:
            return role
        return max(self.trained, key=lambda name: len(self.roles[name].train))

    def teachers(self, role: str, phase: str) -> tuple[str, ...]:
        """The roles on whose rows a phase trains the adapter of `role`."""
        if not self.lora.shared:
            return (role,)
        return tuple(name for name in self.trained if phase in self.roles[name].train)

    @property
    def sample_of_trees(self) -> SampleSettings:
        """How trees are drawn: as all samples, but for a temperature of the round's own."""
        temperature = self.rounds.drawn_at or self.sample.temperature
        return replace(self.sample, temperature=temperature)

    @property
    def branching(self) -> tuple[int, ...]:
        """Children a parent along the chain."""
        return tuple(self.roles[name].branching for name in self.chain)

    def rules(self) -> Checks:
        """The roles are described, their phases exist, and all that is asked at once fits the rows
        that are decoded at a time."""
        together = {"eval.votes": self.eval.votes, "eval.debate.agents": self.eval.debate.agents}
        together |= {f"roles.{name}.branching": r.branching for name, r in self.roles.items()}
        phases = f"phases are {list(self.phases)}"
        return [
            *self._rules_of_rounds(),
            *self.lora.of_roles(
                [(role.train, role.adapter) for role in map(self.roles.get, self.chain) if role]
            ),
            ("chain", len(set(self.chain)) == len(self.chain), "names a role twice"),
            (
                "eval.split",
                self.eval.split == "test" or self.data.development_questions > 0,
                "there is no development split; config.data.development_questions is 0",
            ),
            *(
                (f"credit.{key}", set(names) <= set(self.chain[1:]), _READERS)
                for key, names in self.credit.by_role().items()
            ),
            *(
                ("chain", name in self.roles, f"{name!r} is not described in config.roles")
                for name in self.chain
            ),
            *(
                (f"roles.{name}.train", set(role.train) <= set(self.phases), phases)
                for name, role in self.roles.items()
            ),
            *(
                ("sample.rows", self.sample.rows >= count, f"too few: config.{key} is {count}")
                for key, count in together.items()
            ),
        ]

    def _rules_of_rounds(self) -> Checks:
        several = self.rounds.count > 1
        asks_all = self.rounds.questions == "fresh" and not self.data.train_questions
        trained = any(self.roles[name].train for name in self.chain if name in self.roles)
        return [
            (
                "trees",
                not self.trees or not (several or self.rounds.number),
                "rounds draw their own trees; leave it empty, or give config.rounds.count=1",
            ),
            (
                "data.development_questions",
                not several or self.data.development_questions > 0,
                "0, but the best of several rounds is told by its accuracy on the development "
                "split; give 150, say, or config.rounds.count=1",
            ),
            (
                "data.train_questions",
                not several or not asks_all,
                "0 takes all in the first round, which leaves no fresh ones to the next; give the "
                "number of a round, or config.rounds.questions='repeated'",
            ),
            (
                "rounds.count",
                not several or trained,
                "no role of config.chain is trained, so that all rounds would be the same; give 1, "
                "or phases in config.roles.ROLE.train",
            ),
        ]
