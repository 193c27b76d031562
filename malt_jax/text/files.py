"""The files of a tokenizer as Hugging Face lays them out, read as transformers reads them; each
function names the file that is at fault."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from malt_jax.workdir.storage import check_regular, read_json

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_SETTINGS = "tokenizer_config.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def settings(directory: Path) -> dict[str, Any]:
    """`tokenizer_config.json` over `special_tokens_map.json`; {} where neither is there. Raises
    ValueError for one that asks to run code of its own."""
    fields = _optional(directory / _SETTINGS)
    if fields.get("auto_map"):
        raise ValueError(
            f"{directory / _SETTINGS}: auto_map asks to run code that comes with"
            " the tokenizer (trust_remote_code), which is refused"
        )
    return {**_optional(directory / "special_tokens_map.json"), **fields}


def special(directory: Path, fields: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, unk_token and pad_token, as far as `fields` has them. Raises ValueError
    for one that is no text."""
    tokens = {key: _content(fields[key]) for key in SPECIAL if fields.get(key)}
    for key, token in tokens.items():
        if not isinstance(token, str):
            raise ValueError(f"{directory / _SETTINGS}: {key}: {fields[key]!r} is not a token")
    return tokens


def fast(directory: Path, fields: Mapping[str, Any]) -> FastTokenizer:
    """`tokenizer.json`, or a converted `tokenizer.model`, with the tokens that are declared beside
    it. Raises ValueError if there is neither or it cannot be read."""
    file, model = directory / "tokenizer.json", directory / "tokenizer.model"
    check_regular(file)
    check_regular(model)
    if file.exists():
        try:
            tokenizer = FastTokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{file}: not a readable tokenizer: {error}") from None
    elif model.exists():
        from transformers import AutoTokenizer  # converts SentencePiece models; seconds to import

        try:
            read = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        except Exception as error:  # of several libraries
            text = " ".join(str(error).split())[:300]
            raise ValueError(f"{model}: not a readable tokenizer: {text}") from None
        tokenizer = read.backend_tokenizer
    else:
        raise ValueError(f"{directory}: holds neither tokenizer.json nor tokenizer.model")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _add_declared(tokenizer, directory, fields)
    return tokenizer


def _add_declared(tokenizer: FastTokenizer, directory: Path, fields: Mapping[str, Any]) -> None:
    """The tokens of `added_tokens_decoder` and of `added_tokens.json`, as control tokens. Raises
    ValueError naming the file if one does not get the id that it is declared to have."""
    present = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for file, declared in (
        (directory / _SETTINGS, _decoder(directory, fields)),
        (directory / "added_tokens.json", _added(directory, fields)),
    ):
        for i, token in sorted(declared, key=lambda pair: pair[0]):
            if token.content not in present:
                tokenizer.add_tokens([token])
                present.add(token.content)
            if (given := tokenizer.token_to_id(token.content)) != i:
                raise ValueError(
                    f"{file}: {token.content!r} is declared to be id {i}, but tokenizer.json makes"
                    f" it {given}"
                )
    extra = fields.get("additional_special_tokens") or fields.get("extra_special_tokens") or []
    named = [_content(token) for token in (extra.values() if isinstance(extra, dict) else extra)]
    # Those without an id would get one that the model has no embedding for.
    tokenizer.add_special_tokens(
        [
            token
            for token in named
            if isinstance(token, str)
            and token not in present
            and tokenizer.token_to_id(token) is not None
        ]
    )


def _decoder(directory: Path, fields: Mapping[str, Any]) -> list[tuple[int, AddedToken]]:
    """`added_tokens_decoder`: the tokens by their ids, with their flags."""
    try:
        return [
            (int(i), AddedToken(token["content"], **{k: token[k] for k in _FLAGS if k in token}))
            for i, token in (fields.get("added_tokens_decoder") or {}).items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{directory / _SETTINGS}: added_tokens_decoder: {type(error).__name__}: {error}"
        ) from None


def _added(directory: Path, fields: Mapping[str, Any]) -> list[tuple[int, AddedToken]]:
    """`added_tokens.json`: ids by token; those that `fields` calls special are not normalised."""
    file = directory / "added_tokens.json"
    known = {_content(fields[key]) for key in SPECIAL if fields.get(key)}
    declared = _optional(file)
    if wrong := [token for token, i in declared.items() if not token or type(i) is not int]:
        raise ValueError(f"{file}: {wrong[0]!r}: {declared[wrong[0]]!r} is not an id")
    return [
        (i, AddedToken(token, normalized=token not in known, special=token in known))
        for token, i in declared.items()
    ]


def chat_template(directory: Path, fields: Mapping[str, Any]) -> tuple[str | None, Path]:
    """The default chat template, or None, and the file that it stands in."""
    file = directory / "chat_template.jinja"
    check_regular(file)
    if file.exists():
        try:
            return file.read_text(encoding="utf-8"), file
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8: {error}") from None
    template, file = fields.get("chat_template"), directory / _SETTINGS
    if isinstance(template, list):
        try:
            named = {entry["name"]: entry["template"] for entry in template}
        except (TypeError, KeyError):
            raise ValueError(f"{file}: chat_template: expected names with templates") from None
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{file}: chat_template: {type(template).__name__} is not a text")
    return template, file


def stops(directory: Path) -> tuple[int, ...]:
    """The ids that `generation_config.json` stops at, or `config.json` where that says nothing.

    Raises ValueError naming the file for what is no id.
    """
    for name in ("generation_config.json", "config.json"):
        ids = _optional(directory / name).get("eos_token_id")
        if ids is None:
            continue
        ids = ids if isinstance(ids, list) else [ids]
        if wrong := [i for i in ids if type(i) is not int or not 0 <= i < 1 << 31]:
            raise ValueError(f"{directory / name}: eos_token_id: {wrong[0]!r} is not a token's id")
        return tuple(dict.fromkeys(ids))
    return ()


def write(directory: Path, **files: Mapping[str, Any]) -> None:
    """Writes JSON files by their names without the ending."""
    for name, fields in files.items():
        text = json.dumps(fields, indent=2) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="utf-8")


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
