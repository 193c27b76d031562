"""What the stages of a job share: the model, the questions, the team, each made when asked for."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh, NamedSharding

from malt_jax import export, models, tasks
from malt_jax.config.settings import ModelSettings, Settings
from malt_jax.evaluate import systems
from malt_jax.models.identity import check_identity, identity
from malt_jax.models.lora import Adapter
from malt_jax.rollout import roles
from malt_jax.rollout.strategies import debate
from malt_jax.rollout.team import Team
from malt_jax.runtime import hosts, mesh
from malt_jax.sampler import Sampler, Sampling
from malt_jax.serve.address import LOCAL, Address
from malt_jax.stages import curriculum
from malt_jax.stages.asked import NOTHING, Asked
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question, System
from malt_jax.workdir import question_record, run_record, storage
from malt_jax.workdir.storage import read_json

# The settings of a split whose name is not theirs.
_SETTINGS = {"development": "development_questions"}


@dataclass(frozen=True)
class Job:
    """What stages share, each part made when a stage first asks for it."""

    settings: Settings
    collects: bool  # whether a stage of this job draws trees
    config: Mapping[str, Any] = field(default_factory=dict)  # as given, what `settings` was read of
    topology: str = ""  # the accelerators to plan for
    sample: int = 0  # how many answers are to be judged by hand
    asked: Asked = NOTHING  # what the team is to solve
    address: Address = LOCAL  # of the endpoint
    repository: str = ""  # on the hub

    @property
    def directory(self) -> Path:
        return storage.at(self.settings.workdir)

    @cached_property
    def mesh(self) -> Mesh:
        sizes = self.settings.mesh
        return mesh.make(sizes.data, sizes.fsdp, sizes.tensor)

    @cached_property
    def sampling_mesh(self) -> Mesh:
        """Each host's own devices where they can hold the weights: the hosts then sample apart,
        each its share of the questions. Else the whole mesh, with the hosts in step."""
        return mesh.of_host(self.mesh)

    @cached_property
    def task(self) -> tasks.Task:
        return tasks.chosen(self.settings)

    @cached_property
    def chain(self) -> tuple[roles.Role, ...]:
        return roles.chain(self.settings)

    @cached_property
    def systems(self) -> list[System]:
        return systems.chosen(self.settings)

    @cached_property
    def single_agent(self) -> roles.Role:
        return systems.single_role(self.settings)

    @cached_property
    def model(self) -> models.Model:
        return _model(self.settings.model, self.mesh)

    @cached_property
    def _eval_split(self) -> list[Question]:
        """What can be asked of the evaluation split, of which this run may look at a part."""
        data, on_file = self.settings.data, bool(self.settings.data.eval or self.task.hub)
        limit = 0 if on_file else data.eval_questions
        questions, account = self._load("eval", data.eval, limit)
        kept = questions[: data.eval_questions or None]
        self._account(
            "eval",
            dataclasses.replace(account, kept=len(kept), beyond_limit=len(questions) - len(kept)),
        )
        question_record.settle(self.directory, "eval", kept)
        return questions

    @cached_property
    def held_out(self) -> list[Question]:
        """The questions to evaluate on: of `config.eval.split`."""
        if self.settings.eval.split == "development":
            return self.development
        return self._eval_split[: self.settings.data.eval_questions or None]

    @cached_property
    def _excluded(self) -> list[Question]:
        """All of the evaluation split and of the sets in `config.data.exclude`, be those questions
        too long to be asked here or not."""
        data, seed = self.settings.data, self.settings.data_seed
        exclude = tasks.whole(self.task, data.eval, generated=data.eval_questions, seed=seed)
        for name, path in map(tasks.place, data.exclude):
            exclude += tasks.whole(tasks.get(name), path)
        return exclude

    @cached_property
    def development(self) -> list[Question]:
        """The questions to choose settings on: the first of the training data after those passed
        over, whatever number is trained on. They overlap with no test set."""
        data = self.settings.data
        if not data.development_questions:
            return []
        questions, account = self._load("development", data.train, data.development_questions)
        self._account("development", account)
        question_record.settle(self.directory, "development", questions)
        return questions

    @cached_property
    def training(self) -> list[Question]:
        """The training questions, which overlap neither with a test set nor with the development
        split; of a round those that `curriculum.of_round` chooses."""
        number, data = self.settings.rounds.number, self.settings.data
        limit = curriculum.most(self.settings.rounds, data.train_questions)
        questions, account = self._load("train", data.train, limit)
        if number:
            questions = curriculum.of_round(self.directory, self.settings, questions)
            left_out = account.kept - len(questions) + account.beyond_limit
            account = dataclasses.replace(account, kept=len(questions), beyond_limit=left_out)
        self._account("train", account)
        question_record.settle(self.directory, "train", questions)
        return questions

    @cached_property
    def rooms(self) -> dict[str, int]:
        """The most tokens that a question of each split may have if all prompts that show it are
        to fit the context. Raises ValueError naming the settings that leave it none."""
        model, hint, single = self.model, self.task.answer_hint, self.single_agent
        limits = hint, model.config.context, model.tokenizer
        room = roles.question_budget(self.chain, *limits)
        least = min(room, roles.question_budget((single,), *limits))
        if any(system.kind == "debate" for system in self.systems):
            least = min(least, debate.question_budget(single, self.settings.eval.debate, *limits))
        return {"train": room, "eval": least, "development": least}

    def _load(self, split: str, path: str, limit: int) -> tuple[list[Question], tasks.LoadReport]:
        """Questions that would not fit the context beside the prompts and completions are left
        out."""
        tokenizer, room, data = self.model.tokenizer, self.rooms[split], self.settings.data
        of_test = split == "eval"
        questions, account = tasks.load(
            self.task,
            path,
            split="eval" if of_test else "train",
            limit=limit,
            skip=0 if of_test else data.skip_questions,
            seed=self.settings.data_seed,
            max_chars=data.max_chars,
            fits=lambda text: len(tokenizer.encode(text)) <= room,
            exclude=() if of_test else self._excluded,
            development=self.development if split == "train" else (),
        )
        _warn_of_lost(split, tokenizer, questions)
        return questions, account

    def _account(self, split: str, account: tasks.LoadReport) -> None:
        """Notes in `data.json` where the rows of a split went. Raises ValueError if none is
        left."""
        logging.info("%s: %s", split, account.summary())
        path = self.directory / "data.json"
        if hosts.first():
            self._write_account(path, split, account)
        if not account.kept:
            raise ValueError(
                f"config.data.{_SETTINGS.get(split, split)}: no question is left after the "
                f"filters; {path} says why"
            )

    def _write_account(self, path: Path, split: str, account: tasks.LoadReport) -> None:
        splits = read_json(path) if path.exists() else {}
        counts = dataclasses.asdict(account)
        if quarantined := counts.pop("quarantined"):
            file = self.directory / "quarantine" / f"{split}.json"
            names = ("place", "reason", "begins")
            storage.write_json(file, [dict(zip(names, row, strict=True)) for row in quarantined])
            logging.warning("%s: %d malformed rows are listed there", file, len(quarantined))
        storage.write_json(path, splits | {split: counts})

    @cached_property
    def team(self) -> Team:
        """The untrained team, drawing for collection. Raises ValueError if the KV cache's budget
        is too small for the longest question."""
        tokenizer, sample = self.model.tokenizer, self.settings.sample
        devices = self.sampling_mesh
        apart = hosts.part(devices).count
        most = max(*self.settings.branching, systems.most_votes(self.settings))
        sampler = Sampler(
            self.model.config,
            mesh.view(devices, self.model.params),
            devices,
            -(-sample.rows // apart),
            tokenizer.stop_ids,
            tokenizer.pad_id,
            siblings=min(most, 4),
            kv_gib=sample.kv_gib,
        )
        longest = evaluated = _longest(tokenizer, self.held_out)
        if self.collects:
            longest = max(longest, _longest(tokenizer, self.training))
        single, hint = self.single_agent, self.task.answer_hint
        sizes = roles.prompt_sizes(self.chain, hint, tokenizer)
        for role in self.chain:
            sampler.check(sizes[role.name] + longest, role.max_new_tokens, most)
        size = roles.prompt_sizes((single,), hint, tokenizer)[single.name]
        sampler.check(size + evaluated, single.max_new_tokens, most)
        if any(system.kind == "debate" for system in self.systems):
            size = debate.prompt_size(single, self.settings.eval.debate, hint, tokenizer)
            sampler.check(size + evaluated, single.max_new_tokens, 1)
        return Team(
            sampler=sampler,
            tokenizer=tokenizer,
            roles=self.chain,
            adapters={},
            task=self.task,
            sampling=Sampling(sample.temperature, sample.top_k, sample.top_p),
            seed=self.settings.seed,
            random_stream="collect",
            base=self.model.content_hash,
        )

    def adapter(self, path: Path, role: str) -> Adapter:
        """A role's adapter on the devices that sample. Raises ValueError as `export.load` does."""
        adapter = export.load(path, self.model, role)
        return jax.tree.map(mesh.put, adapter, mesh.tree_shardings(self.sampling_mesh, adapter))

    def adapters(self) -> dict[str, Adapter | None]:
        """Those of the team that this run trained; none if no trained team is evaluated. Raises
        ValueError if a role that is to be trained has none, and as `adapters_of` does."""
        if not any(system.trained for system in self.systems):
            return {}
        for role in self.settings.trained:
            if not export.exists(self.directory, role):
                stage = "rounds" if self.settings.rounds.count > 1 else "train"
                path = self.directory / "export" / role
                raise ValueError(f"{path}: not there; run --stage={stage} first")
        return self.adapters_of(self.directory)

    def adapters_of(self, team: Path) -> dict[str, Adapter | None]:
        """The adapters of the roles that have one, on the devices: of trained roles those that
        `team`, a work directory, exported, one for all that share it, and of the others what
        `config.roles.ROLE.adapter` names. Raises ValueError as `export.load` does."""
        settings = self.settings
        adapters: dict[str, Adapter | None] = {}
        for role in settings.chain:
            path = storage.at(settings.roles[role].adapter)
            if role in settings.trained:
                path = team / "export" / role
            if path != Path():
                adapters[role] = self.adapter(path, role)
        for role in settings.trained if settings.lora.shared else ():
            adapters[role] = adapters[settings.trainee(role)]
        return adapters

    def base_hashes(self) -> dict[str, str]:
        """The hashes that `config.json` notes of the model. None of several hosts, for which the
        first alone may not load it."""
        facts = {} if hosts.several() else identity(self.model)
        return {name: value for name, value in facts.items() if name.endswith("_hash")}

    def claim_base(self) -> None:
        """Notes the model's identity in `config.json`. Raises ValueError, and notes nothing, if
        what was sampled here came from another base or tokenizer."""
        if any((self.directory / name).exists() for name in ("trees", "eval")):
            check_identity(self.directory / "config.json", self.model)
        facts = identity(self.model)
        hosts.by_first(lambda: run_record.note(self.directory, **facts))


def _warn_of_lost(split: str, tokenizer: Tokenizer, questions: Sequence[Question]) -> None:
    """Says how many questions the model cannot read as they are written."""
    if lost := [question.id for question in questions if not tokenizer.keeps(question.text)]:
        logging.warning(
            "%s: %d of %d questions do not come back from the tokenizer, which has no tokens for"
            " some of their characters; the first is %s",
            split,
            len(lost),
            len(questions),
            lost[0],
        )


def _longest(tokenizer: Tokenizer, questions: Sequence[Question]) -> int:
    return max(len(tokenizer.encode(question.text)) for question in questions)


@lru_cache(maxsize=1)
def _model(settings: ModelSettings, on: Mesh) -> models.Model:
    """The jobs of a suite share it."""
    logging.info("loading %s", settings.path)

    def placement(path: Sequence[Any], shape: tuple[int, ...]) -> NamedSharding:
        return mesh.sharding(on, shape, mesh.logical_axes(path, len(shape)))

    model = models.load(settings.path, jnp.dtype(settings.dtype), placement=placement)
    if hosts.several():
        _ = model.content_hash  # now, when all hosts are here
    return model
