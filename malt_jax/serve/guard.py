"""What stands before the application: who may ask, how often, and how much a request may hold."""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from malt_jax.serve.metrics import Metrics
from malt_jax.serve.refused import Refused

_OPEN = {"/", "/page.css", "/page.js", "/health"}
"""What needs no token: nothing of a user's or a model's is in it."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_ADDRESSES = 4096


@dataclass(frozen=True)
class Limits:
    """What a client may take."""

    body_bytes: int = 256 << 10
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    idle_seconds: float = 20.0  # between two requests on a connection
    write_seconds: float = 30.0  # without reading what is sent
    connections: int = 512
    requests_per_second: float = 200.0  # of one address, after a burst of twice as many
    grace_seconds: float = 25.0  # from SIGTERM to the end of what is under way


@dataclass
class _Buckets:
    """Requests that each address has left, refilled with time."""

    rate: float
    clock: Callable[[], float] = time.monotonic
    left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, address: str) -> bool:
        """Whether one is left."""
        now = self.clock()
        before, since = self.left.pop(address, (2 * self.rate, now))
        count = min(before + (now - since) * self.rate, 2 * self.rate)
        taken = count >= 1
        self.left[address] = (count - taken, now)
        if len(self.left) > _ADDRESSES:
            self.left.popitem(last=False)
        return taken


class Guard:
    """An application behind its checks.

    Without a token only names of this machine's own are taken as the Host header, so that no page
    of a foreign name that is made to point here (DNS rebinding) reads or asks anything.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str, limits: Limits) -> None:
        self._app, self._metrics, self._limits = app, metrics, limits
        self._token = _digest(token) if token else b""
        self._buckets = _Buckets(limits.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        told = self._telling(send)
        self._metrics.under_way += 1
        try:
            try:
                self._check(scope)
                receive = self._bounded(scope, receive)
                await self._app(scope, receive, told)
            except Refused as refused:
                await refused.response()(scope, receive, told)
        finally:
            self._metrics.under_way -= 1

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        address = (scope.get("client") or ("",))[0]
        if path != "/health" and not self._buckets.take(address):
            raise Refused(429, "too many requests", code="rate_limit_exceeded", retry=1)
        host = headers.get("host", "")
        if not self._token and _name(f"//{host}") not in _LOOPBACK:
            raise Refused(403, "Host: not a name of this machine's own", code="host_not_allowed")
        _check_origin(headers, host)
        if self._token and path not in _OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            matches = hmac.compare_digest(_digest(given.strip()), self._token)
            if scheme.lower() != "bearer" or not matches:
                message = "Authorization: not `Bearer` with the token of this server"
                raise Refused(401, message, code="invalid_api_key")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refused(415, "Content-Type: not application/json")

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` with a body that ends within its bounds, of bytes and of seconds."""
        declared = Headers(scope=scope).get("content-length", "0")
        too_large = int(declared) > self._limits.body_bytes if declared.isdecimal() else False
        deadline = asyncio.get_running_loop().time() + self._limits.body_seconds
        size, whole = 0, False

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            if too_large:
                raise await self._too_large(receive)
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise Refused(408, "the body did not come in time") from error
            whole = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._limits.body_bytes:
                raise await self._too_large(receive)
            return message

        return bounded

    async def _too_large(self, receive: Receive) -> Refused:
        """The refusal, after the rest of the body has been thrown away for a moment: a client that
        is still sending when the connection closes reads no answer."""
        try:
            async with asyncio.timeout(min(2.0, self._limits.body_seconds)):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        return Refused(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def _telling(self, send: Send) -> Send:
        """`send` with the headers that every answer has, and a count of the answers."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] in (408, 413):
                    headers["connection"] = "close"
                self._metrics.answers[message["status"]] += 1
            await send(message)

        return told


def _check_origin(headers: Headers, host: str) -> None:
    """A browser names the page that asks. Only our own may."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise Refused(403, "Origin: another site's page may not ask", code="origin_not_allowed")


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
