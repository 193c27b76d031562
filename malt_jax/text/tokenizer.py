"""Text to token ids and back, with a wall between data and control tokens.

Questions and completions go through `encode`, which cannot yield a control token whatever the text
says. Only the model's own chat template may, and `prompt` keeps the two apart by encoding them
apart.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as FastTokenizer

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_TODAY = datetime(
    2024, 7, 26
)  # what Llama 3's template falls back to; a clock would change prompts daily
_MARK = (
    "\ue000{}\ue001"  # private-use characters stand for a field while the chat template is rendered
)
_MARKED = re.compile(_MARK.format(r"(\w+)"))
_PLACEHOLDER = re.compile(r"\{\{(?P<literal>[^\W\d]\w*)\}\}|\{(?P<field>[^\W\d]\w*)\}")


def placeholders(template: str) -> tuple[str, ...]:
    """The fields that a prompt template shows, in their order, each once. `{{name}}` is none: it
    stands for a literal `{name}`."""
    matches = _PLACEHOLDER.finditer(template)
    return tuple(dict.fromkeys(match["field"] for match in matches if match["field"]))


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer and the chat conventions of its model. Make one with `from_directory` or `build`.

    `special` maps bos_token, eos_token, unk_token and pad_token to their text, as far as the model
    has them; `also_stops` are further ids its generation config stops at.
    """

    fast: FastTokenizer
    special: Mapping[str, str]
    chat_template: str | None = None
    adds_bos: bool = False
    also_stops: tuple[int, ...] = ()

    @classmethod
    def build(
        cls,
        fast: FastTokenizer,
        special: Mapping[str, str],
        *,
        chat_template: str | None = None,
        adds_bos: bool = False,
        also_stops: Sequence[int] = (),
    ) -> "Tokenizer":
        """Registers the special tokens, so that those of the base vocabulary count as control too.

        Raises ValueError for a special token without an id, and where there is no end token.
        """
        for role, token in special.items():
            if fast.token_to_id(token) is None:
                raise ValueError(f"tokenizer: {role} {token!r} is not in the vocabulary")
        if "eos_token" not in special:
            raise ValueError("tokenizer: eos_token is missing; set it in tokenizer_config.json")
        known = {token.content for token in fast.get_added_tokens_decoder().values()}
        fast.add_special_tokens([token for token in special.values() if token not in known])
        fast.no_truncation()
        fast.no_padding()
        return cls(fast, dict(special), chat_template, adds_bos, tuple(also_stops))

    @classmethod
    def from_directory(cls, directory: Path) -> "Tokenizer":
        """Reads a Hugging Face directory. Raises ValueError naming the file that is at fault."""
        settings = _json(directory / "tokenizer_config.json")
        if settings.get("auto_map"):
            raise ValueError(
                f"{directory / 'tokenizer_config.json'}: auto_map asks to run code that comes with"
                " the tokenizer (trust_remote_code), which is refused"
            )
        named = {**_json(directory / "special_tokens_map.json"), **settings}
        special = {key: _content(named[key]) for key in _SPECIAL if named.get(key)}
        stops = _json(directory / "generation_config.json").get("eos_token_id") or []
        return cls.build(
            _fast(directory),
            special,
            chat_template=_chat_template(directory, settings),
            adds_bos="bos_token" in special and settings.get("add_bos_token") is not False,
            also_stops=stops if isinstance(stops, list) else [stops],
        )

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Every added or special token's id: what `encode` never yields."""
        return frozenset(self.fast.get_added_tokens_decoder())

    @cached_property
    def _plain(self) -> FastTokenizer:
        """The same tokenizer without any knowledge of control tokens, vocabulary included."""
        blueprint = json.loads(self.fast.to_str())
        control = {token["content"] for token in blueprint["added_tokens"]}
        blueprint |= {"added_tokens": [], "post_processor": None}
        model = blueprint["model"]
        hidden = control - {model.get("unk_token")}  # the model itself needs its unknown token
        if isinstance(model["vocab"], dict):
            model["vocab"] = {t: i for t, i in model["vocab"].items() if t not in hidden}
        if "merges" in model:
            model["merges"] = [
                pair for pair in model["merges"] if not hidden & {*pair, "".join(pair)}
            ]
        return FastTokenizer.from_str(json.dumps(blueprint))

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.fast.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def end_id(self) -> int:
        """What ends an assistant's turn: the chat template's end of turn, or the end of text."""
        return self._turn_end if self._turn_end is not None else self._eos_id

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """What ends a completion, ascending: end of turn, of text, and the generation config's."""
        return tuple(sorted({self.end_id, self._eos_id, *self.also_stops}))

    @cached_property
    def pad_id(self) -> int:
        """The padding token, or the end token where there is none (masks say what is padding)."""
        pad = self.special.get("pad_token")
        return self.end_id if pad is None else self._id(pad)

    def encode(self, text: str) -> list[int]:
        """Data to ids, none of them a control token's: such a token's text becomes ordinary pieces.

        Bytes a vocabulary has no piece for are left out; lone surrogates become question marks.
        """
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids = self._plain.encode(clean, add_special_tokens=False).ids
        return [i for i in ids if i not in self.control_ids]

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Ids to text; special tokens are left out unless `control` asks to see them."""
        return self.fast.decode(list(ids), skip_special_tokens=not control)

    def prompt(self, template: str, fields: Mapping[str, str]) -> list[int]:
        """One user message, through the chat template, up to where the assistant begins to write.

        The message is `template` with each `{name}` filled from `fields`; `{{name}}` stands for a
        literal `{name}`, and braces around anything but a single identifier, as in `\\boxed{}`, are
        left alone. The template (with the chat's own text) and the fields are encoded apart and
        their ids concatenated, so no field can bring in a control token. Without a chat template
        the message stands alone, after the beginning-of-text token where the tokenizer adds one.
        Dates in a chat template are always 26 July 2024.

        Raises ValueError for a placeholder without a field and for a field without a placeholder.
        """
        segments = _segments(self, template)
        names = {part for part in segments if isinstance(part, str)}
        if lacking := sorted(names - fields.keys()):
            raise ValueError(
                f"prompt template: {{{lacking[0]}}} has no field; for literal braces write"
                f" {{{{{lacking[0]}}}}}"
            )
        if unused := sorted(fields.keys() - names):
            raise ValueError(f"prompt template: field {unused[0]!r} has no placeholder")
        pieces = [self.encode(fields[p]) if isinstance(p, str) else p for p in segments]
        return [i for piece in pieces for i in piece]

    def save(self, directory: Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and generation_config.json."""
        directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": self.adds_bos,
            **self.special,
        }
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        stops = {"eos_token_id": list(self.stop_ids)}
        self.fast.save(str(directory / "tokenizer.json"))
        for name, fields in (("tokenizer_config", settings), ("generation_config", stops)):
            (directory / f"{name}.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")

    @property
    def _eos_id(self) -> int:
        return self._id(self.special["eos_token"])

    def _id(self, token: str) -> int:
        found = self.fast.token_to_id(token)
        assert found is not None  # `build` has looked
        return found

    @cached_property
    def _turn_end(self) -> int | None:
        """The first control token the chat template writes after an assistant's message."""
        if self.chat_template is None:
            return None
        mark = _MARK.format("answer")
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": mark}]
        try:
            tail = self._render(turns, generate=False).rpartition(mark)[2]
        except jinja2.TemplateError:  # a template may take user messages only
            return None
        ids = self.fast.encode(tail, add_special_tokens=False).ids
        return next((i for i in ids if i in self.control_ids), None)

    def _render(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        assert self.chat_template is not None
        return _jinja(self.chat_template).render(
            messages=messages, add_generation_prompt=generate, **self.special
        )


@lru_cache(maxsize=64)
def _segments(tokenizer: Tokenizer, template: str) -> tuple[tuple[int, ...] | str, ...]:
    """The rendered chat as encoded pieces with field names between them."""
    if "\ue000" in template or "\ue001" in template:
        raise ValueError("prompt template: the characters U+E000 and U+E001 are reserved")

    def marked(match: re.Match[str]) -> str:
        field = match["field"]
        return f"{{{match['literal']}}}" if field is None else _MARK.format(field)

    text = _PLACEHOLDER.sub(marked, template)
    if tokenizer.chat_template is not None:
        rendered = tokenizer._render([{"role": "user", "content": text}], generate=True)
        if lost := set(_MARKED.findall(text)) - set(_MARKED.findall(rendered)):
            raise ValueError(f"chat template: drops the field {min(lost)!r} of the user's message")
        text = rendered
    elif tokenizer.adds_bos:
        text = tokenizer.special["bos_token"] + text
    pieces = _MARKED.split(text)
    return tuple(
        piece if k % 2 else tuple(tokenizer.fast.encode(piece, add_special_tokens=False).ids)
        for k, piece in enumerate(pieces)
    )


@lru_cache(maxsize=8)
def _jinja(source: str) -> jinja2.Template:
    """Compiles a chat template with the functions transformers offers it, the clock stopped."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _TODAY.strftime
    return environment.from_string(source)


def _fast(directory: Path) -> FastTokenizer:
    file = directory / "tokenizer.json"
    if file.exists():
        return FastTokenizer.from_file(str(file))
    if not (directory / "tokenizer.model").exists():
        raise ValueError(f"{directory}: holds neither tokenizer.json nor tokenizer.model")
    from transformers import AutoTokenizer  # converts SentencePiece models; seconds to import

    return AutoTokenizer.from_pretrained(directory, trust_remote_code=False).backend_tokenizer


def _chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    file = directory / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}.get("default")
    return found


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else token["content"]


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not JSON: {error}") from None
