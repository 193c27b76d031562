"""Events as OpenAI's chat completions, whole or in chunks. The roles' turns are
`reasoning_content`, the final answer is `content`."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from malt_jax.serve.backend import Answered, Began, Delta, Ended, Event

Field = Literal["reasoning_content", "content"]


@dataclass
class _Turn:
    run: int
    role: str
    unseen: list[str]
    ended: bool = False


class Choice:
    """The events of one request as one text: turn after turn in the order in which they began,
    whatever runs at the same time.

    `answers` is the role whose turn is the content as it is written; None where it is known at the
    end, of several passes that vote.
    """

    def __init__(self, index: int, answers: str | None, passes: int) -> None:
        self.index = index
        self.answered: Answered | None = None
        self._answers, self._passes = answers, passes
        self._turns: list[_Turn] = []  # from the one that is told
        self._finish: dict[str, str] = {}

    def told(self, event: Event) -> Iterator[tuple[Field, str]]:
        """What an event adds to which field."""
        if isinstance(event, Answered):
            self.answered = event
            if self._answers is None:
                yield "content", event.text
            return
        if isinstance(event, Began):
            self._turns.append(_Turn(event.run, event.role, self._heading(event)))
        turn = next(t for t in self._turns if (t.run, t.role) == (event.run, event.role))
        if isinstance(event, Delta):
            turn.unseen.append(event.text)
        elif isinstance(event, Ended):
            turn.ended = True
            self._finish[event.text] = event.finish
            if turn.role != self._answers:
                turn.unseen.append("\n\n")
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
        while self._turns:
            turn = self._turns[0]
            if text := "".join(turn.unseen):
                yield "content" if turn.role == self._answers else "reasoning_content", text
            turn.unseen.clear()
            if not turn.ended:
                return
            del self._turns[0]


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
