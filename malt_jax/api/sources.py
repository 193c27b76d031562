"""Where a team comes from: a work directory, or a recipe and adapters made elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from malt_jax import export, models, recipe
from malt_jax.config import files
from malt_jax.config.names import choices
from malt_jax.config.settings import Settings
from malt_jax.models import Model
from malt_jax.models.identity import check_identity
from malt_jax.models.lora import Adapter
from malt_jax.models.peft import CONFIG, WEIGHTS
from malt_jax.runtime import mesh as meshes
from malt_jax.serve.watch import Watched
from malt_jax.workdir import storage
from malt_jax.workdir.storage import read_json

_RECORD = "config.json"


def settings(source: str | Path) -> Settings:
    """The settings of a work directory, by its `config.json`, or of a recipe, by name or file.

    A work directory counts where it lies now. Raises ValueError for what is neither.
    """
    place = storage.at(str(source))
    if not place.is_dir():
        return recipe.parse(files.load(str(source)).to_dict())
    record = place / _RECORD
    if not record.exists():
        raise ValueError(
            f"{place}: no {_RECORD} in it; give the work directory of a run, or a recipe"
        )
    config = read_json(record).get("config")
    if not isinstance(config, dict) or "chain" not in config:
        raise ValueError(f"{record}: not the record of a run; give the work directory of a run")
    return recipe.parse(recipe.completed(config | {"workdir": str(place)}))


def base(given: Settings, devices: Mesh) -> Model:
    """The base model on its devices. Raises ValueError if what lies in the work directory comes
    from another base or tokenizer."""

    def placement(path: Sequence[Any], shape: tuple[int, ...]) -> NamedSharding:
        return meshes.sharding(devices, shape, meshes.logical_axes(path, len(shape)))

    model = models.load(given.model.path, jnp.dtype(given.model.dtype), placement=placement)
    check_identity(storage.at(given.workdir) / _RECORD, model)
    return model


def adapters(
    given: Settings, model: Model, devices: Mesh, elsewhere: Mapping[str, str | Path]
) -> Watched:
    """The roles' adapters, read whenever they are asked for: those that `elsewhere` names, each a
    PEFT directory; if it names none, those of the work directory, and `config.roles.ROLE.adapter`
    of roles that are not trained. An adapter that roles share is loaded once.

    Raises ValueError for a name that is no role's, and for an adapter that is not there.
    """
    if unknown := sorted(elsewhere.keys() - {*given.chain}):
        raise ValueError(f"adapters: no role {unknown[0]!r}; {choices(unknown[0], given.chain)}")
    places = {role: storage.at(str(path)) for role, path in elsewhere.items()}
    workdir = storage.at(given.workdir)
    for role in given.chain if not places else ():
        if given.roles[role].train:
            places[role] = workdir / "export" / role
            if not export.exists(workdir, role):
                stage = "rounds" if given.rounds.count > 1 else "train"
                raise ValueError(
                    f"{places[role]}: not there, the team is not trained yet; run --stage={stage}, "
                    "or ask its base: --base, base=True"
                )
        elif given.roles[role].adapter:
            places[role] = storage.at(given.roles[role].adapter)

    def load() -> dict[str, Adapter | None]:
        read = {role: export.load(path, model, role) for role, path in places.items()}
        placed = {
            role: jax.tree.map(meshes.put, adapter, meshes.tree_shardings(devices, adapter))
            for role, adapter in read.items()
        }
        if given.lora.shared and not elsewhere:
            placed |= {role: placed[given.trainee(role)] for role in given.trained}
        return {**placed}

    files = [path / name for path in places.values() for name in (CONFIG, WEIGHTS)]
    return Watched(files, load)


def verdicts(given: Settings) -> dict[str, tuple[str, ...]]:
    """By role that gives a verdict, the two words of it; none where the settings name no words.
    Where they name no roles, all between the first and the last."""
    words = given.credit.verdict
    return dict.fromkeys(given.credit.by_verdict or given.chain[1:-1], words) if words else {}
