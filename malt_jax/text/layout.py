"""A prompt's layout: the chat's text cut at its control tokens into runs, which are encoded whole.

A tokenizer takes control tokens out of a text first and encodes what lies between them; so runs
that are encoded whole, by a tokenizer that knows no control token, give the ids of the whole text,
and no field can bring a control token in.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer as FastTokenizer

from malt_jax.text import chat, placeholders

# Private-use characters stand for a field, and for where whitespace is stripped to the right or to
# the left, while the chat is rendered and cut.
_MARKED = re.compile("\ue000(\\w+)\ue001|(\ue002|\ue003)")
_STRIP_RIGHT, _STRIP_LEFT = "\ue002", "\ue003"
_RESERVED = "\ue000\ue001\ue002\ue003"
_WIDE_SPACE = "\u2003"  # whitespace that no chat template writes


@dataclass(frozen=True)
class Part:
    """A stretch of a run's text; `data` is true for a field's."""

    text: str
    data: bool = False


@dataclass(frozen=True)
class Run:
    """Text between two control tokens: parts, names of fields, and `strip` marks as characters.
    `start` is true where the whole text begins."""

    parts: tuple[Part | str, ...]
    start: bool

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields in it."""
        return tuple(p for p in self.parts if isinstance(p, str) and p not in _RESERVED)

    def filled(self, fields: Mapping[str, str]) -> list[Part]:
        """Its parts with those fields in place, stripped where the marks say so."""
        filled: list[Part] = []
        stripping = False
        for part in self.parts:
            if part == _STRIP_RIGHT:
                stripping = True
            elif part == _STRIP_LEFT:
                while filled and not (kept := filled[-1].text.rstrip()):
                    filled.pop()
                if filled:
                    filled[-1] = Part(kept, filled[-1].data)
            else:
                new = part if isinstance(part, Part) else Part(fields[part], data=True)
                if stripping:
                    new = Part(new.text.lstrip(), new.data)
                    stripping = not new.text
                filled.append(new)
        return [part for part in filled if part.text]


def mark(name: str) -> str:
    """What stands for a field while a chat is rendered."""
    return f"\ue000{name}\ue001"


def rendered(template: str, chat_template: str | None, special: Mapping[str, str]) -> str:
    """The chat with a mark for each field. Raises ValueError for a chat template that cannot be
    rendered or drops a field."""
    if any(character in template for character in _RESERVED):
        raise ValueError("prompt template: the characters U+E000 to U+E003 are reserved")
    message = placeholders.fill(template, mark)
    if chat_template is None:
        return message
    text, spaced = (
        chat.render(chat_template, [{"role": "user", "content": content}], special, generate=True)
        for content in (message, f"{_WIDE_SPACE}{message}{_WIDE_SPACE}")
    )
    if lost := set(_fields(message)) - set(_fields(text)):
        raise ValueError(f"chat template: drops the field {min(lost)!r} of the user's message")
    core = message.strip()  # many templates strip a message, fields at its ends included
    left = _STRIP_RIGHT if _WIDE_SPACE + message not in spaced else ""
    right = _STRIP_LEFT if message + _WIDE_SPACE not in spaced else ""
    return text.replace(core, left + core + right) if core else text


def conversation(
    roles: Sequence[str], chat_template: str | None, special: Mapping[str, str]
) -> str:
    """The chat of turns by these roles, up to where the assistant begins to write, with a mark for
    each turn's text: `turn0`, `turn1`, ... Without a chat template a line each.

    Raises ValueError for a chat template that cannot be rendered, and for one that takes no turn of
    such a role at its place.
    """
    texts = [mark(f"turn{i}") for i in range(len(roles))]
    if chat_template is None:
        return "\n".join(texts)

    def chat_of(contents: Sequence[str]) -> str:
        turns = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        return chat.render(chat_template, turns, special, generate=True)

    text = chat_of(texts)
    spaced = chat_of([f"{_WIDE_SPACE}{turn}{_WIDE_SPACE}" for turn in texts])
    if lost := [i for i, turn in enumerate(texts) if turn not in text]:
        raise ValueError(f"chat template: leaves out turn {lost[0] + 1} ({roles[lost[0]]})")
    for turn in texts:
        left = _STRIP_RIGHT if _WIDE_SPACE + turn not in spaced else ""
        right = _STRIP_LEFT if turn + _WIDE_SPACE not in spaced else ""
        text = text.replace(turn, left + turn + right)
    return text


def pieces(text: str, fast: FastTokenizer, unknown: str | None) -> Iterator[int | Run]:
    """The control tokens of a rendered chat as ids, and the runs between them."""
    added = fast.get_added_tokens_decoder()
    encoding = fast.encode(text, add_special_tokens=False)
    end, strips = 0, ""
    for i, (first, last) in zip(encoding.ids, encoding.offsets, strict=True):
        if i not in added or (added[i].content == unknown and text[first:last].strip() != unknown):
            continue
        yield from _run(text[end:first], end == 0, strips, _STRIP_LEFT if added[i].lstrip else "")
        yield i
        end, strips = last, _STRIP_RIGHT if added[i].rstrip else ""
    yield from _run(text[end:], end == 0, strips, "")


def data_characters(parts: Sequence[Part]) -> list[bool]:
    """Of each character of the parts' text, whether it is data."""
    return [part.data for part in parts for _ in part.text]


def _run(text: str, start: bool, left: str, right: str) -> Iterator[Run]:
    parts: list[Part | str] = []
    end = 0
    text = f"{left}{text}{right}"
    for match in _MARKED.finditer(text):
        parts += [Part(text[end : match.start()]), match[1] or match[2]]
        end = match.end()
    parts.append(Part(text[end:]))
    kept = tuple(part for part in parts if isinstance(part, str) or part.text)
    if any(isinstance(part, Part) or part not in _RESERVED for part in kept):
        yield Run(kept, start)


def _fields(text: str) -> list[str]:
    return [match[1] for match in _MARKED.finditer(text) if match[1]]
