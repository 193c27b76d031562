"""Chat completions of an OpenAI-compatible server: one request, its tries, and what it used."""

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from malt_jax.config.judging import JudgeSettings

FIRST_PAUSE = 0.5  # seconds before the second try; each later pause is twice as long
LONGEST_PAUSE = 30.0
_MOST_BYTES = 1 << 20  # of a reply
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}


class Reply(NamedTuple):
    """What a model wrote, and the tokens that the server counts for it."""

    text: str
    tokens: int


class Unanswered(Exception):
    """No reply: what the last try came to. `finally_` where no other try would come to more."""

    def __init__(self, why: str, *, finally_: bool = False, pause: float = 0.0) -> None:
        super().__init__(why)
        self.finally_, self.pause = finally_, pause


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirection would carry the key to another server."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def ask(
    settings: JudgeSettings,
    key: str,
    messages: Sequence[Mapping[str, str]],
    *,
    tries: int,
    **more: Any,
) -> Reply:
    """The model's reply to `messages`; `more` are fields of the request (temperature, seed).

    Raises:
        Unanswered: if none of the tries gets one.
    """
    body = json.dumps({"model": settings.model, "messages": list(messages), **more}).encode()
    for attempt in range(tries):
        try:
            return _once(settings, key, body)
        except Unanswered as error:
            if error.finally_ or attempt == tries - 1:
                raise
            pause = max(error.pause, FIRST_PAUSE * 2**attempt)
            time.sleep(min(pause, LONGEST_PAUSE) * random.uniform(0.7, 1.0))
    raise Unanswered("no try was made")


def _once(settings: JudgeSettings, key: str, body: bytes) -> Reply:
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    url = settings.endpoint.rstrip("/") + "/chat/completions"
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with _OPENER.open(request, timeout=settings.seconds) as response:
            return _reply(_read(response, settings.seconds))
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After") or ""
        pause = float(wait) if wait.isdigit() else 0.0
        raise Unanswered(
            f"status {error.code}", finally_=error.code not in _AGAIN, pause=pause
        ) from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Unanswered(f"{type(error).__name__}: {error}"[:200]) from None
    except Exception as error:  # http.client's own: a status line that is none, a cut body
        raise Unanswered(type(error).__name__) from None


def _read(response: Any, seconds: float) -> bytes:
    """The body, whole. Raises ValueError for one that is too long or drips."""
    deadline, received = time.monotonic() + seconds, bytearray()
    while chunk := response.read1(1 << 16):
        received += chunk
        if len(received) > _MOST_BYTES:
            raise ValueError(f"a reply of more than {_MOST_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError(f"no whole reply in {seconds:g} seconds")
    return bytes(received)


def _reply(body: bytes) -> Reply:
    data = json.loads(body)
    text = data["choices"][0]["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("the reply holds no text")
    used = (data.get("usage") or {}).get("total_tokens")
    return Reply(text, used if isinstance(used, int) else len(text) // 4)
