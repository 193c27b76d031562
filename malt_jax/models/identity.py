"""Which base model and tokenizer a file on disk was made for, and the refusal of any other."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malt_jax.models import Model
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.workdir.storage import read_json

_PARTS = {"base_hash": "base model", "tokenizer_hash": "tokenizer"}


def identity(model: Model) -> dict[str, Any]:
    """What an adapter or a checkpoint of `model` belongs to: `base` (where it was read from),
    `base_hash` (of the weight files' bytes), `tokenizer_hash`, and `base_facts`: all else of it
    that shapes what it writes, by name."""
    return {
        "base": model.source,
        "base_hash": model.content_hash,
        "tokenizer_hash": tokenizer_hash(model.tokenizer),
        "base_facts": _config_facts(model) | _tokenizer_facts(model.tokenizer),
    }


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """`sha256:` and the digest of every token with its id, and of which ids are control tokens.

    The same vocabulary gives the same hash whichever file it was read from.
    """
    vocabulary = tokenizer.fast.get_vocab(with_added_tokens=True)
    return _digest(
        [
            sorted(vocabulary.items(), key=lambda item: (item[1], item[0])),
            sorted(tokenizer.control_ids),
        ]
    )


def _config_facts(model: Model) -> dict[str, Any]:
    """The fields of the config as dotted names, as JSON gives them back."""
    fields = dataclasses.asdict(model.config)
    rope = {f"rope.{name}": value for name, value in fields.pop("rope").items()}
    return {f"config.{name}": value for name, value in (fields | rope).items()}


def _tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """How the tokenizer splits and joins text, what it frames a chat with, and where it stops."""
    blueprint = json.loads(tokenizer.fast.to_str())
    steps = {name: blueprint[name] for name in ("normalizer", "pre_tokenizer", "decoder")}
    steps["merges"] = blueprint["model"].get("merges")
    steps["chat_template"] = tokenizer.chat_template
    return {
        **{name: None if step is None else _digest(step) for name, step in steps.items()},
        "stop_ids": list(tokenizer.stop_ids),
        "adds_bos": tokenizer.adds_bos,
    }


def _digest(content: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


def check_identity(path: Path, model: Model) -> None:
    """Checks a JSON file that holds an `identity` against `model` (`malt.json` of an export,
    `base.json` of a phase's checkpoints, `config.json` of a work directory). A file that is not
    there, or says nothing of it, is in order.

    Raises ValueError naming the file's directory, the base it was made for, and what differs.
    """
    if not path.exists():
        return
    if difference := differences(read_json(path), identity(model)):
        raise ValueError(
            f"{path.parent}: made for another {difference}; give that base in config.model.path, "
            "or name another directory"
        )


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """What of an `identity` is other than it is recorded, with both values; empty if nothing is, as
    far as the record, which may be of an earlier version, says."""
    for key, part in _PARTS.items():
        if recorded.get(key) and recorded[key] != current[key]:
            return (
                f"{part}: {recorded.get('base')} ({str(recorded[key])[:19]}...) there, "
                f"{current['base']} ({current[key][:19]}...) now"
            )
    before, now = recorded.get("base_facts") or {}, current["base_facts"]
    changed = [name for name in now if name in before and before[name] != now[name]]
    facts = (f"{name} {_short(before[name])} there and {_short(now[name])} now" for name in changed)
    return f"base: {', '.join(facts)}" if changed else ""


def _short(fact: Any) -> str:
    return f"{fact[:19]}..." if isinstance(fact, str) and fact.startswith("sha256:") else repr(fact)
