"""What training would only find out role by role and hours in, looked at before it begins."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from malt_jax import export
from malt_jax.config.settings import Settings
from malt_jax.learn import datasets
from malt_jax.models import Model
from malt_jax.models.identity import check_identity
from malt_jax.workdir.storage import read_json


def check(workdir: Path, settings: Settings, model: Model) -> None:
    """Looks at every role that is still to be trained, and at what is there already.

    Raises ValueError for data sets that are missing or empty (all of them by name), for exports
    and checkpoints that were made for another base or tokenizer, and for a `config.roles.ROLE.
    adapter` that does not fit.
    """
    empty: list[Path] = []
    flags: dict[str, str] = {}
    for role in settings.chain:
        check_identity(workdir / "export" / role / export.RECORD, model)
        phases = settings.roles[role].train
        if not phases or export.exists(workdir, role):
            continue
        for phase in phases:
            check_identity(workdir / "checkpoints" / role / phase / "base.json", model)
            teachers = settings.teachers(role, phase)
            if not sum(datasets.rows(workdir, teacher, phase) for teacher in teachers):
                empty.append(workdir / "datasets" / role / f"{phase}.parquet")
                kept = phases[: phases.index(phase)]
                flags.setdefault(role, f"--config.roles.{role}.train={_literal(kept)}")
        export.starting_adapter(settings, model, role)
    if empty:
        raise ValueError(
            "nothing to learn from:\n"
            + "".join(f"  {path}: empty\n" for path in empty)
            + _why(workdir / "datasets" / "yield.json", flags)
            + "or, in this work directory, leave out what has no data:\n  "
            + shlex.join(flags.values())
        )


def _why(path: Path, roles: Iterable[str]) -> str:
    """What the roles' samples lack, by the counts in `yield.json`, and the ways out."""
    counts = read_json(path) if path.exists() else {}
    reasons = {role: datasets.lacks(counts[role]) for role in roles if role in counts}
    lines = [f"  {role}: {why}\n" for role, why in reasons.items() if why]
    lines = lines or ["  raise config.data.train_questions or lower config.credit.threshold\n"]
    return f"with another --config.workdir ({path} has the counts):\n{''.join(lines)}"


def _literal(phases: tuple[str, ...]) -> str:
    """A tuple as the command line takes it, without spaces."""
    return repr(phases).replace(" ", "")
