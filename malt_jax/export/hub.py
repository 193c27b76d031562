"""A trained team for the Hugging Face hub: one repository with the adapter of each role in a folder
of its name, and a card of them all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from malt_jax import export
from malt_jax.config.settings import Settings
from malt_jax.export import card
from malt_jax.models.peft import CONFIG, WEIGHTS
from malt_jax.workdir.storage import read_json


def contents(workdir: Path, settings: Settings) -> dict[str, bytes]:
    """The files of a repository, by path. No path of this machine is in them.

    Raises ValueError for a team of which no role is trained, a role that is not trained yet, and
    where the base is not one of the hub, from which others could load it.
    """
    files: dict[str, bytes] = {}
    records = []
    for role in settings.chain:
        if not settings.roles[role].train:
            continue
        source = workdir / "export" / role
        if not export.exists(workdir, role):
            raise ValueError(f"{source}: not there; run --stage=train first")
        record = _without_paths(read_json(source / export.RECORD))
        if record["base_model"] is None:
            raise ValueError(
                f"{source}: an adapter for {record['base']}, which others cannot load; upload that "
                "base, and train with its hub id as config.model.path"
            )
        fields = read_json(source / CONFIG) | {"base_model_name_or_path": record["base_model"]}
        files[f"{role}/{WEIGHTS}"] = (source / WEIGHTS).read_bytes()
        files[f"{role}/{CONFIG}"] = _json(fields)
        files[f"{role}/{export.RECORD}"] = _json(record)
        files[f"{role}/{card.FILE}"] = card.text(record).encode()
        records.append(record)
    if not records:
        raise ValueError(f"{workdir}: no role of config.chain is trained, so there is no adapter")
    return {card.FILE: card.of_team(records).encode(), **files}


def upload(files: Mapping[str, bytes], repository: str) -> str:
    """Commits the files to a repository, which is made if there is none, and private then; the
    commit's address. Under the token of the environment or of `hf auth login`.

    Raises ValueError naming the flag for what the hub refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    hub = huggingface_hub.HfApi()
    operations = [
        huggingface_hub.CommitOperationAdd(path, content) for path, content in files.items()
    ]
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        done = hub.create_commit(repository, operations, commit_message="Adapters of a MALT team")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
        raise ValueError(f"--repository={repository}: {error}") from error
    return str(done.commit_url)


def _json(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def _without_paths(value: Any) -> Any:
    """A record in which of every absolute path the last part alone is left."""
    if isinstance(value, dict):
        return {key: _without_paths(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_paths(part) for part in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    return value
