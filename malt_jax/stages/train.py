"""Stage 3: one adapter a role, through the phases that its settings name: in MALT (section 4.3) SFT
on positives, then DPO from that policy, which is also its reference."""

import zlib
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from malt_jax import export
from malt_jax.config.settings import Settings
from malt_jax.learn import datasets, examples, metrics
from malt_jax.learn.loop import fit
from malt_jax.learn.phases import PHASES
from malt_jax.models import Model, lora
from malt_jax.models.identity import check_identity, identity
from malt_jax.models.lora import Adapter
from malt_jax.runtime import hosts
from malt_jax.runtime import mesh as meshes
from malt_jax.stages import preflight
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage, known
from malt_jax.workdir import storage
from malt_jax.workdir.outputs import Output


def run(workdir: Path, settings: Settings, model: Model, mesh: Mesh) -> None:
    """Trains and exports every role's adapter that `export/` does not hold yet; one that roles
    share once, for each of them.

    Raises ValueError before anything is trained for what `datasets.check_fresh`, `preflight.check`
    and `metrics.check` refuse.
    """
    datasets.check_fresh(workdir, settings)
    preflight.check(workdir, settings, model)
    metrics.check(settings.wandb)
    done: dict[str, Adapter] = {}  # by trainee
    for role in settings.trained:
        if export.exists(workdir, role):
            continue
        trainee = settings.trainee(role)
        if trainee not in done:
            done = {trainee: train_role(workdir, settings, model, mesh, trainee)}
        export.write(workdir, settings, model, role, done[trainee])


def train_role(workdir: Path, settings: Settings, model: Model, mesh: Mesh, role: str) -> Adapter:
    """All phases of one role, from a fresh adapter or from the one its settings name; of an adapter
    that roles share, all phases of its `trainee`, on the rows of all. What some phases leave to the
    next is exported too, to be compared with what that makes of it.

    Raises ValueError for checkpoints that other roles' rows led to."""
    seed = jax.random.fold_in(jax.random.key(settings.seed), zlib.crc32(role.encode()))
    shape = settings.lora
    init = partial(
        lora.init, model.config, rank=shape.rank, alpha=shape.alpha, targets=shape.targets
    )
    shardings = meshes.tree_shardings(mesh, jax.eval_shape(init, seed))
    start = export.starting_adapter(settings, model, role)
    adapter = (
        jax.jit(init, out_shardings=shardings)(seed)
        if start is None
        else jax.tree.map(meshes.put, start, meshes.tree_shardings(mesh, start))
    )
    names = settings.roles[role].train
    for name in names:
        phase = PHASES[name]
        directory = workdir / "checkpoints" / role / name
        check_identity(directory / "base.json", model)
        teachers = settings.teachers(role, name)
        base = identity(model) | ({"teachers": list(teachers)} if settings.lora.shared else {})
        _check_teachers(directory / "base.json", role, teachers)
        hosts.by_first(partial(storage.write_json, directory / "base.json", base))
        first, *beside = (workdir / "datasets" / of / f"{name}.parquet" for of in teachers)
        data = examples.load(
            first,
            directory,
            phase,
            settings,
            model,
            mesh,
            adapter if settings.rounds.reference == "start" else None,
            beside,
        )
        adapter = fit(directory, phase, settings, model, mesh, adapter, data, f"{role} {name}")
        if phase.exported and name != names[-1]:
            for learner in settings.trained if settings.lora.shared else (role,):
                if name in settings.roles[learner].train[:-1]:
                    export.write(workdir, settings, model, learner, adapter, name)
    return adapter


def _check_teachers(record: Path, role: str, teachers: tuple[str, ...]) -> None:
    stored = storage.read_json(record).get("teachers", [role]) if record.exists() else None
    if stored not in (None, list(teachers)):
        raise ValueError(
            f"{record.parent}: trained on the rows of {', '.join(stored)}, now "
            f"{', '.join(teachers)}; give the old config.lora.shared and config.roles.ROLE.train "
            "again, or delete it"
        )


def _foresee(job: Job) -> None:
    known(job)
    metrics.check(job.settings.wandb)
    for name in job.settings.chain:
        role = job.settings.roles[name]
        for phase in role.train:
            if role.branching < (least := PHASES[phase].siblings):
                raise ValueError(
                    f"config.roles.{name}.branching: {role.branching}, but {phase} compares "
                    f"samples of one parent; give at least {least}, or leave {phase} out of "
                    f"config.roles.{name}.train"
                )


def _stage(job: Job) -> None:
    job.claim_base()
    run(job.directory, job.settings, job.model, job.mesh)


STAGE = Stage(
    "train",
    "train an adapter for every role, phase by phase, and export it",
    _stage,
    (
        Output(
            "checkpoints/{role}/{phase}",
            (
                *("credit.*", "lora.*", "{phase}.*", "roles.{role}.train", "roles.{role}.adapter"),
                *("rounds.reference", "rounds.replay", "rounds.replay_weight"),
            ),
            ("datasets", "checkpoints/{role}/{earlier}"),
        ),
        Output("export/{role}", ("rounds.*",), ("checkpoints/{role}/*",)),
        Output("export/{phase}/{role}", needs=("checkpoints/{role}/{phase}",)),
    ),
    foresees=_foresee,
)
