"""The story in order: what the stages need, and the stages themselves, in one work directory."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from malt_jax import (
    collect,
    datasets,
    evaluate,
    export,
    mesh,
    models,
    report,
    roles,
    rundir,
    tasks,
    train,
    tree,
)
from malt_jax.identity import check_identity, identity
from malt_jax.models.lora import Adapter
from malt_jax.sampler import Sampler, Sampling
from malt_jax.settings import Settings
from malt_jax.types import Question

STAGES = ("collect", "datasets", "train", "evaluate", "report")
ON_REQUEST = ("merge",)


@dataclass(frozen=True)
class Job:
    """What stages share, each part made when a stage first asks for it."""

    settings: Settings

    @property
    def directory(self) -> Path:
        return Path(self.settings.workdir)

    @cached_property
    def mesh(self) -> Mesh:
        sizes = self.settings.mesh
        return mesh.make(sizes.data, sizes.fsdp, sizes.tensor)

    @cached_property
    def task(self) -> tasks.Task:
        return tasks.get(self.settings.data.task)

    @cached_property
    def chain(self) -> tuple[roles.Role, ...]:
        return roles.chain(self.settings)

    @cached_property
    def model(self) -> models.Model:
        settings = self.settings.model
        logging.info("loading %s", settings.path)

        def place(path: Sequence[Any], array: np.ndarray) -> jax.Array:
            axes = mesh.logical_axes(path, array.ndim)
            return jax.device_put(array, mesh.sharding(self.mesh, array.shape, axes))

        return models.load(settings.path, jnp.dtype(settings.dtype), place=place)

    @cached_property
    def questions(self) -> dict[str, list[Question]]:
        """The evaluation questions, and training questions that overlap with none of that split.

        Questions that would not fit the context beside the prompts and completions are left out.
        """
        data, tokenizer = self.settings.data, self.model.tokenizer
        context = self.model.config.context
        room = roles.question_budget(self.chain, self.task.answer_hint, context, tokenizer)

        def load(split: str, path: str, limit: int, exclude: Sequence[Question]) -> Any:
            return tasks.load(
                self.task,
                path,
                split=split,
                limit=limit,
                seed=self.settings.seed,
                max_chars=data.max_chars,
                fits=lambda text: len(tokenizer.encode(text)) <= room,
                exclude=exclude,
            )

        # Training must not overlap with the whole split, of which this run may look at a part.
        on_file = bool(data.eval or self.task.hub)
        all_held_out, account = load("eval", data.eval, 0 if on_file else data.eval_questions, ())
        held_out = all_held_out[: data.eval_questions or None]
        eval_report = dataclasses.replace(
            account, kept=len(held_out), beyond_limit=len(all_held_out) - len(held_out)
        )
        training, train_report = load("train", data.train, data.train_questions, all_held_out)
        reports = {"train": train_report, "eval": eval_report}
        for split, found in reports.items():
            logging.info("%s: %s", split, found.summary())
        rundir.write_json(
            self.directory / "data.json",
            {split: dataclasses.asdict(found) for split, found in reports.items()},
        )
        found = {"train": training, "eval": held_out}
        for split, questions in found.items():
            if not questions:
                raise ValueError(
                    f"config.data.{split}: no question is left after the filters; "
                    f"{self.directory / 'data.json'} says why"
                )
        return found

    @cached_property
    def team(self) -> tree.Team:
        """The untrained team, drawing for collection. Raises ValueError if the KV cache's budget
        is too small for the longest question."""
        tokenizer, sample = self.model.tokenizer, self.settings.sample
        most = max(*self.settings.branching, self.settings.eval.votes)
        sampler = Sampler(
            self.model.config,
            self.model.params,
            self.mesh,
            sample.rows,
            tokenizer.stop_ids,
            tokenizer.pad_id,
            siblings=min(most, 4),
            kv_gib=sample.kv_gib,
        )
        texts = [q.text for questions in self.questions.values() for q in questions]
        longest = max(len(tokenizer.encode(text)) for text in texts)
        sizes = roles.prompt_sizes(self.chain, self.task.answer_hint, tokenizer)
        for role in self.chain:
            sampler.check(sizes[role.name] + longest, role.max_new_tokens, most)
        return tree.Team(
            sampler=sampler,
            tokenizer=tokenizer,
            roles=self.chain,
            adapters={},
            task=self.task,
            sampling=Sampling(sample.temperature, sample.top_k, sample.top_p),
            seed=self.settings.seed,
            stream="collect",
        )

    def adapters(self) -> dict[str, Adapter | None]:
        """The adapters of the roles that have one, on the devices: the exported ones of trained
        roles, and of the others what `config.roles.ROLE.adapter` names.

        Raises ValueError if a role that is to be trained has none, and if one was made for
        another base.
        """
        found: dict[str, Adapter | None] = {}
        for role in self.settings.chain:
            path = Path(self.settings.roles[role].adapter)
            if self.settings.roles[role].train:
                path = self.directory / "export" / role
                if not path.exists():
                    raise ValueError(f"{path}: not there; run --stage=train first")
            if path != Path():
                adapter = export.load(path, self.model)
                found[role] = jax.device_put(adapter, mesh.tree_shardings(self.mesh, adapter))
        return found

    def claim_base(self) -> None:
        """Notes the model's identity in `config.json`. Raises ValueError, and notes nothing, if
        what was sampled here came from another base or tokenizer."""
        if any((self.directory / name).exists() for name in ("trees", "eval")):
            check_identity(self.directory / "config.json", self.model)
        rundir.note(self.directory, **identity(self.model))


def run(settings: Settings, config: Mapping[str, Any], stages: Sequence[str]) -> None:
    """Runs the stages in the work directory, where each goes on from what it already holds.

    `config` is the resolved config as given, kept beside the results. Raises ValueError if the
    work directory holds another config's results.
    """
    job = Job(settings)
    _ = job.chain, job.task  # what is wrong with these must show before anything is written
    rundir.claim(job.directory, config)
    for stage in stages:
        started = time.perf_counter()
        logging.info("stage %s", stage)
        _run_stage(stage, job)
        logging.info("stage %s took %.0f s", stage, time.perf_counter() - started)


def _run_stage(stage: str, job: Job) -> None:
    directory, settings = job.directory, job.settings
    match stage:
        case "collect":
            job.claim_base()
            collect.run(directory, settings, job.team, job.questions["train"])
        case "datasets":
            datasets.run(directory, settings)
        case "train":
            job.claim_base()
            train.run(directory, settings, job.model, job.mesh)
        case "evaluate":
            job.claim_base()
            evaluate.run(directory, settings, job.team, job.adapters(), job.questions["eval"])
            export.refresh(directory, settings)
        case "merge":
            export.merge(directory, settings, job.model)
        case "report":
            logging.info("open %s", report.write(directory).absolute().as_uri())
