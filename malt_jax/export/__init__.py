"""What leaves the house: a role's adapter as a PEFT directory with its model card, the same merged
into the base's weights and as GGUF, and adapters that come in from elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

from absl import logging

from malt_jax import tasks
from malt_jax.config.settings import Settings
from malt_jax.export import card
from malt_jax.models import Model, gguf, gguf_written, lora
from malt_jax.models.identity import check_identity, identity
from malt_jax.models.lora import Adapter
from malt_jax.models.merged import save_merged
from malt_jax.models.peft import CONFIG, WEIGHTS, load_adapter, save_adapter
from malt_jax.runtime import hosts, mesh
from malt_jax.workdir import run_record, storage
from malt_jax.workdir.storage import file_hash, read_json

RECORD = "malt.json"
BASE = "base"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENSE = re.compile(r"^license:\s*([\w.-]+)\s*$", re.MULTILINE)


def exists(workdir: Path, role: str, phase: str = "") -> bool:
    """Whether a role's adapter has been exported; of `phase`, what that left to the next."""
    return (workdir / "export" / phase / role / RECORD).exists()


def round_of(workdir: Path, role: str) -> int:
    """The round of learning that a role's exported adapter is of; 0 if there is none."""
    path = workdir / "export" / role / RECORD
    return int(read_json(path).get("round", 0)) if path.exists() else 0


def copied(source: Path, workdir: Path, role: str, phase: str = "", number: int = 0) -> None:
    """Exports a role's adapter as another work directory exported it, there in round `number`,
    unless it is here already."""
    place = Path("export", phase, role)
    record = read_json(source / place / RECORD) | {"round": number}
    target = workdir / place
    if (target / RECORD).exists():
        stored = read_json(target / RECORD)
        if all(stored.get(key) == record[key] for key in ("adapter_hash", "round")):
            return
    with storage.directory_whole(target, RECORD) as directory:
        for file in storage.files(source / place):
            (directory / file.name).write_bytes(file.read_bytes())
        config = read_json(directory / CONFIG)
        if config["base_model_name_or_path"] == str(storage.absolute(source / "export" / BASE)):
            # Of a GGUF file: what --stage=merge writes in this work directory.
            config["base_model_name_or_path"] = str(storage.absolute(workdir / "export" / BASE))
            (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _describe(directory, record | {"results": None})


def write(
    workdir: Path, settings: Settings, model: Model, role: str, adapter: Adapter, phase: str = ""
) -> None:
    """Writes `export/ROLE/`: the adapter for PEFT, `malt.json` and a model card, whole or not at
    all. If `phase` is given it is `export/PHASE/ROLE/`, what that phase left to the next."""
    whole = mesh.fetch(adapter)
    hosts.by_first(lambda: _write(workdir, settings, model, role, whole, phase))


def _write(
    workdir: Path, settings: Settings, model: Model, role: str, adapter: Adapter, phase: str
) -> None:
    with storage.directory_whole(workdir / "export" / phase / role, RECORD) as directory:
        save_adapter(
            adapter,
            model.config,
            directory,
            base=str(_base_for_others(workdir, model)),
            rank=settings.lora.rank,
            alpha=settings.lora.alpha,
            targets=settings.lora.targets,
        )
        record = _record(workdir, settings, model, role)
        if phase:  # the results are of the team as it ends
            done = record["phases"].index(phase) + 1
            record |= {"phases": record["phases"][:done], "results": None}
        _describe(directory, record | {"adapter_hash": file_hash(directory / WEIGHTS)})


def refresh(workdir: Path, settings: Settings) -> None:
    """Brings the results of `eval/results.json` into every export's record and card; what is the
    same already is not written again."""
    results = _results(workdir)
    for role in settings.chain:
        for directory in (workdir / "export" / role, workdir / "export" / "merged" / role):
            if (directory / RECORD).exists():
                _describe(directory, read_json(directory / RECORD) | {"results": results})


def load(directory: Path, model: Model, role: str) -> Adapter:
    """A PEFT adapter for a role, ours or made elsewhere. Raises ValueError for what `load_adapter`
    refuses, and if `malt.json` beside it names another base or tokenizer than `model`, another
    role, or other weights."""
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory; expected a PEFT adapter")
    check_identity(directory / RECORD, model)
    with storage.on_disk(directory) as local:
        record = read_json(local / RECORD) if (local / RECORD).exists() else {}
        made_for = record.get("role", role)
        if role not in (made_for, *record.get("shared_by", ())):
            raise ValueError(
                f"{directory}: the adapter of {made_for!r}, in the place of the adapter of "
                f"{role!r}; give that role its own, or, if they are to share it, add "
                f'"shared_by": ["{role}"] to {directory / RECORD}'
            )
        noted, weights = record.get("adapter_hash"), local / WEIGHTS
        if noted and not record["merged"] and weights.exists() and file_hash(weights) != noted:
            raise ValueError(
                f"{directory / WEIGHTS}: damaged, its hash is not that in {RECORD}; delete "
                f"{directory} and run --stage=train again, or fetch it anew"
            )
        return load_adapter(local, model.config)


def starting_adapter(settings: Settings, model: Model, role: str) -> Adapter | None:
    """The adapter that a role's training starts from: `config.roles.ROLE.adapter`, or None.

    Training keeps its shape. Raises ValueError naming both if that is not `config.lora`'s.
    """
    path = settings.roles[role].adapter
    if not path:
        return None
    adapter, wanted = load(storage.at(path), model, role), settings.lora
    rank = lora.rank(adapter)
    every = {target for layer in adapter.layers.values() for target in layer}
    stored = _shape(rank, adapter.scale * rank, every)
    if stored != (asked := _shape(wanted.rank, wanted.alpha, {*wanted.targets})):
        raise ValueError(
            f"config.roles.{role}.adapter: {path} has {stored}; config.lora has {asked}; training "
            "keeps an adapter's shape, so give config.lora the values of the file"
        )
    whole = dict.fromkeys(range(model.config.num_layers), every)
    if {i: set(layer) for i, layer in adapter.layers.items()} != whole:
        raise ValueError(
            f"config.roles.{role}.adapter: {path} adapts only some layers; config.lora adapts "
            "every target of every layer"
        )
    return adapter


def _shape(rank: int, alpha: float, targets: set[str]) -> str:
    inorder = tuple(target for target in lora.TARGETS if target in targets)
    return f"rank {rank}, alpha {alpha:g}, targets {inorder}"


def merge(workdir: Path, settings: Settings, model: Model) -> None:
    """Writes `export/merged/ROLE/` for every exported role: a Hugging Face directory of the base
    with the role's adapter in its weights, in `config.model.dtype`; and `export/gguf/ROLE/`: the
    adapter for llama.cpp. If the base is a GGUF file, also the merged weights there, and
    `export/base/`: the bare base as a Hugging Face directory, for programs that put the adapters
    on it.

    A directory that holds the same weights already is left alone. Raises ValueError if nothing is
    exported.
    """
    roles = [role for role in settings.chain if exists(workdir, role)]
    if not roles:
        raise ValueError(f"{workdir / 'export'}: no adapters; run --stage=train first")
    for role in roles:
        source, target = workdir / "export" / role, workdir / "export" / "merged" / role
        adapter = load(source, model, role)
        _write_gguf(workdir, settings, model, role, adapter)
        record = _record(workdir, settings, model, role) | _form(settings) | {"merged": True}
        record["adapter_hash"] = file_hash(source / WEIGHTS)
        if _same_weights(target, record):
            continue
        with storage.directory_whole(target, RECORD) as directory:
            save_merged(directory, model.config, model.params, adapter)
            model.tokenizer.save(directory)
            _describe(directory, record)
        logging.info("%s: merged", target)
    if _gguf(model):
        _write_base(workdir / "export" / BASE, settings, model)


def _write_gguf(
    workdir: Path, settings: Settings, model: Model, role: str, adapter: Adapter
) -> None:
    target = workdir / "export" / "gguf" / role
    record = identity(model) | _form(settings) | {"role": role}
    record["adapter_hash"] = file_hash(workdir / "export" / role / WEIGHTS)
    if _same_weights(target, record):
        return
    with storage.directory_whole(target, RECORD) as directory:
        gguf_written.save_adapter(directory / "adapter.gguf", model.config, adapter)
        if _gguf(model):
            source = gguf.open_file(model.files[0])
            whole = directory / "model.gguf"
            gguf_written.save_merged(whole, source, model.config, model.params, adapter)
        storage.write_json(directory / RECORD, record)
    logging.info("%s: the adapter for llama.cpp", target)


def _write_base(target: Path, settings: Settings, model: Model) -> None:
    record = identity(model) | _form(settings) | {"license": _license(model)}
    if _same_weights(target, record):
        return
    with storage.directory_whole(target, RECORD) as directory:
        save_merged(directory, model.config, model.params, None)
        model.tokenizer.save(directory)
        (directory / card.FILE).write_text(card.of_base(record), encoding="utf-8")
        storage.write_json(directory / RECORD, record)
    logging.info("%s: the base without an adapter, for PEFT and vLLM to put adapters on", target)


def _form(settings: Settings) -> dict[str, Any]:
    """The form of written weights: their dtype, and the version of the files beside them."""
    return {"dtype": settings.model.dtype, "layout": 2}


def _same_weights(target: Path, record: dict[str, Any]) -> bool:
    """Whether a directory holds these weights in this form."""
    if not (target / RECORD).exists():
        return False
    written = read_json(target / RECORD)
    keys = ("adapter_hash", "base_hash", "base_facts", "dtype", "layout")
    return all(written.get(key) == record.get(key) for key in keys)


def _gguf(model: Model) -> bool:
    return any(file.suffix == ".gguf" for file in model.files)


def _base_for_others(workdir: Path, model: Model) -> Path | str:
    """Where other programs find the base of an adapter: a hub id, or an absolute path. They read no
    GGUF file as one, so that there it is the directory that `merge` writes."""
    if _gguf(model):
        return storage.absolute(workdir / "export" / BASE)
    local = Path(model.source)
    return storage.absolute(local) if local.exists() else model.source


def _describe(directory: Path, record: dict[str, Any]) -> None:
    """Writes the record and the card that follows from it, where they are not there as they are."""
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    for name, content in ((RECORD, text), (card.FILE, card.text(record))):
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            with storage.written_whole(path) as file:
                file.write(content.encode())


def _record(workdir: Path, settings: Settings, model: Model, role: str) -> dict[str, Any]:
    """Everything that `card.text` tells, and the identity of what the adapter was trained on."""
    questions, yields = (
        read_json(path) if path.exists() else {}
        for path in (workdir / "data.json", workdir / "datasets" / "yield.json")
    )
    start = None
    if path := settings.roles[role].adapter:
        start = {"path": path, "hash": file_hash(storage.at(path) / WEIGHTS)}
    local = Path(model.source).exists()
    plain = json.loads(json.dumps(settings.as_config()))
    del plain["workdir"]
    datasets = workdir / "datasets"
    # The solutions of a warm start are learned on the prompts of the whole chain.
    warm = (datasets / "yield.json").exists() and not (datasets / "credit.json").exists()
    return {
        "role": role,
        **({"shared_by": list(settings.chain)} if warm else {}),
        "chain": list(settings.chain),
        "merged": False,
        "phases": list(settings.roles[role].train),
        **identity(model),
        "base_model": model.source if _HUB_ID.fullmatch(model.source) and not local else None,
        "license": _license(model),
        "started_from": start,
        "answer_hint": tasks.get(settings.data.task).answer_hint,
        "data": {
            "questions": questions.get("train", {}).get("kept"),
            "yield": yields.get(role),
        },
        "settings": plain,
        "versions": run_record.versions(),
        "results": _results(workdir),
    }


def _results(workdir: Path) -> dict[str, Any] | None:
    path = workdir / "eval" / "results.json"
    if not path.exists():
        return None
    results = read_json(path)
    kept = ("split", "k", "systems", "paired", "equal_compute")
    return {key: results[key] for key in kept if key in results}


def _license(model: Model) -> str:
    """The base's license as its GGUF metadata or the card beside its weights names it, or
    "other"."""
    for file in model.files[:1]:
        if file.suffix == ".gguf":
            field = gguf.open_file(file).get_field("general.license")
            return "other" if field is None else str(field.contents())
        if (readme := file.parent / card.FILE).exists():
            _, _, rest = readme.read_text(encoding="utf-8").partition("---\n")
            if match := _LICENSE.search(rest.partition("\n---")[0]):
                return match[1]
    return "other"
