"""Which base model and tokenizer a file on disk was made for, and the refusal of any other."""

import hashlib
import json
from pathlib import Path

from malt_jax.models import Model
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.workdir.storage import read_json

_PARTS = {"base_hash": "base model", "tokenizer_hash": "tokenizer"}


def identity(model: Model) -> dict[str, str]:
    """What an adapter or a checkpoint of `model` belongs to: `base` (where it was read from),
    `base_hash` (of the weight files' bytes) and `tokenizer_hash`."""
    return {
        "base": model.source,
        "base_hash": model.content_hash,
        "tokenizer_hash": tokenizer_hash(model.tokenizer),
    }


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """`sha256:` and the digest of every token with its id, and of which ids are control tokens.

    The same vocabulary gives the same hash whichever file it was read from.
    """
    vocabulary = tokenizer.fast.get_vocab(with_added_tokens=True)
    content = [
        sorted(vocabulary.items(), key=lambda item: (item[1], item[0])),
        sorted(tokenizer.control_ids),
    ]
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


def check_identity(path: Path, model: Model) -> None:
    """Checks a JSON file that holds an `identity` against `model` (`malt.json` of an export,
    `base.json` of a phase's checkpoints, `config.json` of a work directory). A file that is not
    there, or says nothing of it, is in order.

    Raises ValueError naming the file's directory and the base it was made for.
    """
    if not path.exists():
        return
    there, here = read_json(path), identity(model)
    for key, part in _PARTS.items():
        if there.get(key) and there[key] != here[key]:
            raise ValueError(
                f"{path.parent}: made for another {part}: {there.get('base')} "
                f"({str(there[key])[:19]}...) there, {here['base']} ({here[key][:19]}...) now; "
                "give that base in config.model.path, or name another directory"
            )
