"""Events as OpenAI's chat completions, whole or in chunks. The roles' turns are
`reasoning_content`, the final answer is `content`."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from malt_jax.serve.backend import Answered, Began, Delta, Event

Field = Literal["reasoning_content", "content"]


class Choice:
    """The events of one request as one text: pass after pass, role after role, whichever writes
    first, so that the same events in any order are the same text.

    Of a single pass the last role's turn is the content as it is written; of several that vote the
    content is known at the end.
    """

    def __init__(self, index: int, roles: Sequence[str], passes: int) -> None:
        self.index = index
        self.answered: Answered | None = None
        self._answers = roles[-1] if passes == 1 else None
        self._passes = passes
        # By turn, from the one that is told.
        self._unseen: dict[tuple[int, str], list[str]] = {
            (run, role): [] for run in range(passes) for role in roles
        }
        self._ended: set[tuple[int, str]] = set()
        self._finish: dict[str, str] = {}

    def told(self, event: Event) -> Iterator[tuple[Field, str]]:
        """What an event adds to which field."""
        if isinstance(event, Answered):
            self.answered = event
            if self._answers is None:
                yield "content", event.text
            return
        turn = event.run, event.role
        if isinstance(event, Began):
            self._unseen[turn] += self._heading(event)
        elif isinstance(event, Delta):
            self._unseen[turn].append(event.text)
        else:
            self._ended.add(turn)
            self._finish[event.text] = event.finish
            if event.role != self._answers:
                self._unseen[turn].append("\n\n")
        yield from self._seen()

    @property
    def finish_reason(self) -> str:
        """`length` where the text that answers was cut short."""
        return self._finish.get(self.answered.text if self.answered else "", "stop")

    @property
    def summary(self) -> Mapping[str, Any]:
        """What OpenAI's form has no place for: the answer itself, the votes and the verdict."""
        if self.answered is None:
            return {}
        fields = ("answer", "votes", "verdict")
        return {name: getattr(self.answered, name) for name in fields}

    def _heading(self, event: Began) -> list[str]:
        if event.role == self._answers:
            return []
        number = f" {event.run + 1}" if self._passes > 1 else ""
        return [f"**{event.role}{number}**\n\n"]

    def _seen(self) -> Iterator[tuple[Field, str]]:
        for turn in list(self._unseen):
            if text := "".join(self._unseen[turn]):
                yield "content" if turn[1] == self._answers else "reasoning_content", text
            self._unseen[turn].clear()
            if turn not in self._ended:
                return
            del self._unseen[turn]


@dataclass(frozen=True)
class Answer:
    """An answer on its way to a client."""

    model: str
    choices: Sequence[Choice]
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def first(self) -> Iterator[dict[str, Any]]:
        """The chunks with which a stream begins."""
        for choice in self.choices:
            yield self._chunk(choice.index, {"role": "assistant", "content": ""})

    def chunks(self, index: int, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks that an event of a choice makes."""
        choice = self.choices[index]
        for name, text in choice.told(event):
            yield self._chunk(index, {name: text})
        if isinstance(event, Answered):
            reason = choice.finish_reason
            yield self._chunk(index, {}, finish_reason=reason, malt=choice.summary)

    def last(self) -> Iterator[dict[str, Any]]:
        """The chunk with the counts, if they were asked for."""
        if self.include_usage:
            yield self._head("chat.completion.chunk") | {"choices": [], "usage": self.usage()}

    def whole(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The completion, from each choice's text by field."""
        choices = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": "", "refusal": None} | dict(text),
                "logprobs": None,
                "finish_reason": choice.finish_reason,
                "malt": choice.summary,
            }
            for choice, text in zip(self.choices, texts, strict=True)
        ]
        return self._head("chat.completion") | {"choices": choices, "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        """Tokens of all choices together."""
        ends = [choice.answered for choice in self.choices if choice.answered]
        read, written = (
            sum(getattr(end, name) for end in ends) for name in ("tokens_read", "tokens_written")
        )
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(end.tokens_shared for end in ends)},
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(
        self, index: int, delta: Mapping[str, str], finish_reason: str | None = None, **more: Any
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self.include_usage else {}
        return self._head("chat.completion.chunk") | {"choices": [choice | more]} | usage
