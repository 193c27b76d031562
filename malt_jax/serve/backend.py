"""The seam between the endpoint and the engine: what is asked, and what is told while it is
answered."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Finish = Literal["stop", "length"]
"""Why a text ends: of itself or at a stop string, or at the most tokens it may have."""


@dataclass(frozen=True)
class Options:
    """How one request is answered. None: as the team was trained."""

    votes: int = 1  # passes through the roles; the majority answers
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    max_tokens: int | None = None  # of every role, at most its trained length for a team
    seed: int | None = None  # the same seed gives the same text, whatever runs beside it
    stop: tuple[str, ...] = ()
    trained: bool = True  # False: every role plays under the base model
    written: Mapping[str, str] = field(default_factory=dict)
    """What the first roles are taken to have written: sampling begins with the role after them."""


@dataclass(frozen=True)
class Message:
    """A turn of a conversation, as the model's chat template takes it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Began:
    """A role begins to write in a pass, counted from 0."""

    run: int
    role: str
    prompt_tokens: int


@dataclass(frozen=True)
class Delta:
    """More of a role's text: whole characters, no control token, nothing after a stop."""

    run: int
    role: str
    text: str


@dataclass(frozen=True)
class Ended:
    """A role has written its text."""

    run: int
    role: str
    text: str
    finish: Finish
    completion_tokens: int


@dataclass(frozen=True)
class Answered:
    """The end of a request. Of passes as frequent the earliest answers."""

    answer: str  # in the task's canonical form; empty where no pass gave one
    text: str  # the last role's text in the pass that answers
    votes: Mapping[str, int]  # passes by answer
    verdict: bool | None  # the verifier's on the pass that answers; None where it gave none
    tokens_read: int  # prompt tokens; a prompt with several samples counts once
    tokens_shared: int  # of these, how many were computed before, for this request or another
    tokens_written: int


Event = Began | Delta | Ended | Answered


class Busy(Exception):
    """No room for another request at present."""


class Backend(Protocol):
    """What answers requests. All methods are called on the event loop's thread."""

    @property
    def models(self) -> Sequence[str]:
        """`team`, `team-vote`, and each role's name."""

    @property
    def roles(self) -> Sequence[str]:
        """The roles, in the order in which they write."""

    @property
    def ready(self) -> bool:
        """Whether the weights are loaded and the first programs compiled."""

    @property
    def fault(self) -> Exception | None:
        """What has ended it before it was asked to end: it will not be ready again."""

    def ask(self, question: str, options: Options) -> AsyncGenerator[Event, None]:
        """The team's answer to a question.

        Nothing begins before the first event is asked for, which raises ValueError for what does
        not fit or makes no sense, and `Busy` where the queue is full. Closing the iterator frees
        what the request holds at once. It raises RuntimeError where a request that was begun
        cannot be answered, for a reason that is not the client's.
        """

    def chat(
        self, role: str, messages: Sequence[Message], options: Options
    ) -> AsyncGenerator[Event, None]:
        """One role's adapter on a conversation, as it stands; one pass. Errors as for `ask`."""

    def counters(self) -> Mapping[str, float]:
        """Counters and gauges by Prometheus name, without labels."""

    async def close(self) -> None:
        """Ends when what runs is finished; asks for more are refused as `Busy`."""
