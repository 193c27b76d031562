"""Text to token ids and back, with a wall between data and control tokens.

Questions and completions are data: whatever their text says, it never becomes a control token. Only
the model's own chat template and the prompts of the roles may write one.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from malt_jax.text import chat, files, layout, plain
from malt_jax.text.layout import Part, Run


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
    origin: str = ""  # the file of the chat template, for messages

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
        settings = files.settings(directory)
        special = files.special(directory, settings)
        fast = files.fast(directory, settings)
        template, origin = files.chat_template(directory, settings)
        bos = fast.token_to_id(special["bos_token"]) if "bos_token" in special else None
        adds_bos = settings.get("add_bos_token")
        if not isinstance(adds_bos, bool):
            adds_bos = fast.encode("").ids[:1] == [bos]
        stops = files.stops(directory)
        try:
            tokenizer = cls.build(
                fast,
                special,
                chat_template=template,
                adds_bos=adds_bos and bos is not None,
                also_stops=stops,
            )
        except ValueError as error:
            raise ValueError(f"{directory}: {error}") from None
        return replace(tokenizer, origin=str(origin))

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Every added or special token's id: what `encode` never yields."""
        return frozenset(self.fast.get_added_tokens_decoder())

    @cached_property
    def _start(self) -> FastTokenizer:
        """The same tokenizer without any knowledge of control tokens, vocabulary included."""
        return plain.without_control(self.fast)

    @cached_property
    def _after(self) -> FastTokenizer:
        """`_start` for a text that follows on a control token."""
        return plain.not_first(self._start)

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
        return list(_encoded(self, text))

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Ids to text; special tokens are left out unless `control` asks to see them."""
        return self.fast.decode(list(ids), skip_special_tokens=not control)

    def keeps(self, text: str) -> bool:
        """Whether a text comes back from its ids, whitespace and Unicode's normal forms aside."""
        return _essence(self.decode(self.encode(text))) == _essence(text)

    def prompt(self, template: str, fields: Mapping[str, str]) -> list[int]:
        """One user message, through the chat template, up to where the assistant begins to write.

        The message is `template` with its placeholders (`text.placeholders`) filled from `fields`.
        The ids are those of the rendered text as a whole, as transformers' `apply_chat_template`
        gives them, but for a field that holds the text of a control token, which becomes ordinary
        pieces. Without a chat template the message stands alone, after the beginning-of-text token
        where the tokenizer adds one. Dates in a chat template are always 26 July 2024.

        Raises ValueError for a placeholder without a field, for a field without a placeholder, and
        for a chat template that cannot be rendered.
        """
        pieces = _layout(self, template)
        names = {part for run in pieces if isinstance(run, Run) for part in run.fields}
        if lacking := sorted(names - fields.keys()):
            raise ValueError(
                f"prompt template: {{{lacking[0]}}} has no field; for literal braces write"
                f" {{{{{lacking[0]}}}}}"
            )
        if unused := sorted(fields.keys() - names):
            raise ValueError(f"prompt template: field {unused[0]!r} has no placeholder")
        return self._filled(pieces, fields)

    def conversation(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Turns (role, text) through the chat template, up to where the assistant begins to write.

        Their texts are data, as fields of `prompt` are. Raises ValueError for a chat template that
        cannot be rendered for turns of these roles.
        """
        pieces = _conversation(self, tuple(role for role, _ in turns))
        return self._filled(pieces, {f"turn{i}": text for i, (_, text) in enumerate(turns)})

    def _filled(self, pieces: Sequence["Piece"], fields: Mapping[str, str]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            ids += self._run(piece, fields) if isinstance(piece, Run) else piece
        return ids

    def overhead(self, template: str) -> int:
        """The most tokens that a prompt has beside those of its fields, each `encode`d alone."""
        size = 0
        for piece in _layout(self, template):
            if isinstance(piece, Run):
                fixed = [part for part in piece.parts if isinstance(part, Part)]
                size += sum(len(self._ids([part], piece.start)) for part in fixed)
                size += self._seams * len(piece.fields)
            else:
                size += len(piece)
        return size

    def _run(self, run: Run, fields: Mapping[str, str]) -> list[int]:
        """The ids of a run as a whole; or those of its parts one by one, if they are so many fewer
        that the prompt would have more than `overhead` says."""
        parts = run.filled(fields)
        ids = self._ids(parts, run.start)
        apart = [
            _encoded(self, part.text) if part.data else self._ids([part], run.start)
            for part in parts
        ]
        if len(ids) <= sum(map(len, apart)) + self._seams * len(run.fields):
            return ids
        return [i for part in apart for i in part]

    def _ids(self, parts: Sequence[Part], start: bool) -> list[int]:
        """The ids of the parts' text, of which data yields none of a control token; what the
        vocabulary does not know is left out of data, and its unknown token elsewhere."""
        text = "".join(part.text for part in parts).encode("utf-8", "replace").decode("utf-8")
        encoding = (self._start if start else self._after).encode(text, add_special_tokens=False)
        if self.control_ids.isdisjoint(encoding.ids):
            return list(encoding.ids)
        data = layout.data_characters(parts)
        return [
            i
            for i, (first, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if i not in self.control_ids or not any(data[first:end])
        ]

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
        plain.with_bos(self.fast, self.special["bos_token"] if self.adds_bos else None).save(
            str(directory / "tokenizer.json")
        )
        files.write(
            directory,
            tokenizer_config=settings,
            generation_config={"eos_token_id": list(self.stop_ids)},
        )

    @cached_property
    def _model(self) -> dict[str, Any]:
        """What turns words into tokens, as tokenizer.json has it, without vocabulary and merges."""
        model: dict[str, Any] = json.loads(self.fast.to_str())["model"]
        return {key: model[key] for key in model.keys() - {"vocab", "merges"}}

    @property
    def _unknown(self) -> str | None:
        """The token for what the vocabulary does not know, or None."""
        return self._model.get("unk_token")

    @property
    def _seams(self) -> int:
        """The tokens that a field may cost more where its text meets its neighbours'; none if
        tokens are whole words."""
        return 0 if self._model["type"] == "WordLevel" else 2

    @property
    def _eos_id(self) -> int:
        return self._id(self.special["eos_token"])

    def _id(self, token: str) -> int:
        i = self.fast.token_to_id(token)
        assert i is not None  # `build` has looked
        return i

    @cached_property
    def _turn_end(self) -> int | None:
        """The first control token the chat template writes after an assistant's message."""
        if self.chat_template is None:
            return None
        answer = layout.mark("answer")
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
        try:
            text = chat.render(self.chat_template, turns, self.special, generate=False)
        except ValueError:  # a template may take user messages only
            return None
        ids = self.fast.encode(text.rpartition(answer)[2], add_special_tokens=False).ids
        return next((i for i in ids if i in self.control_ids), None)


def _essence(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


@lru_cache(maxsize=4096)
def _encoded(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """A text of data alone; a field stands in many prompts."""
    return tuple(tokenizer._ids([Part(text, data=True)], start=True))


Piece = tuple[int, ...] | Run
"""Ids that stand fast, or a run of text that holds fields."""


@lru_cache(maxsize=64)
def _layout(tokenizer: Tokenizer, template: str) -> tuple[Piece, ...]:
    """The prompt of a template's one message."""
    return tuple(_pieces(tokenizer, partial(layout.rendered, template)))


@lru_cache(maxsize=64)
def _conversation(tokenizer: Tokenizer, roles: tuple[str, ...]) -> tuple[Piece, ...]:
    """The prompt of turns by these roles."""
    return tuple(_pieces(tokenizer, partial(layout.conversation, roles)))


def _pieces(
    tokenizer: Tokenizer, render: Callable[[str | None, Mapping[str, str]], str]
) -> Iterator[Piece]:
    try:
        text = render(tokenizer.chat_template, tokenizer.special)
    except ValueError as error:
        raise ValueError(
            f"{tokenizer.origin}: {error}" if tokenizer.origin else str(error)
        ) from None
    if tokenizer.chat_template is None and tokenizer.adds_bos:
        yield (tokenizer._id(tokenizer.special["bos_token"]),)
    for piece in layout.pieces(text, tokenizer.fast, tokenizer._unknown):
        if isinstance(piece, int):
            yield (piece,)
        elif piece.fields:
            yield piece
        else:
            yield tuple(tokenizer._ids(piece.filled({}), piece.start))
