"""A headless Chromium, driven over its DevTools pipe: JSON messages that end in a zero byte."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 60
WATCH = """window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  violations.push(event.violatedDirective));"""

_CONTRASTS = """(() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (name, back) => {
    const [low, high] = [light(name), light(back)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return ["--text", "--soft", "--accent"].flatMap(
    (name) => ["--page", "--panel"].map((back) => ratio(name, back)));
})()"""


class Page:
    """One open page. `errors` gathers the exceptions that its scripts did not catch."""

    def __init__(self, source: int, sink: int) -> None:
        self.errors: list[str] = []
        self._source, self._sink = source, sink
        self._buffer = b""
        self._number = 0
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._sink, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, place: Path | str) -> None:
        """A file, or an address of this machine."""
        self.call("Page.navigate", url=place if isinstance(place, str) else place.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def run(self, expression: str) -> Any:
        """The JSON value of `expression`, a promise's once it is kept."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of `expression` once it is true."""
        return self.run(f"""new Promise((done, fail) => {{
          const end = Date.now() + {1000 * PATIENCE};
          const look = () => {{
            const value = {expression};
            if (value) done(value);
            else if (Date.now() > end) fail(new Error("never true"));
            else setTimeout(look, 10);
          }};
          look();
        }})""")

    def violations(self) -> list[str]:
        """The directives of the page's policy that something on it ran into."""
        directives: list[str] = self.run(
            "new Promise((done) => setTimeout(() => done(violations), 50))"
        )
        return directives

    def screen(self, width: int, scheme: str = "light") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def contrasts(self) -> list[float]:
        """Of the colours of text to those behind it, as WCAG has it; AA asks for 4.5."""
        ratios: list[float] = self.run(_CONTRASTS)
        return ratios

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._source], [], [], PATIENCE)[0]:
                raise TimeoutError(f"Chromium said nothing for {PATIENCE} s")
            chunk = os.read(self._source, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium closed its pipe")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        return message


def find() -> str | None:
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


@contextlib.contextmanager
def browser(program: str, profile: Path) -> Iterator[Page]:
    """Starts `program` with no network and a profile of its own, and ends it."""
    their_source, our_sink = (_move(end) for end in os.pipe())
    our_source, their_sink = (_move(end) for end in os.pipe())
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--proxy-server=127.0.0.1:9", "--no-first-run", f"--user-data-dir={profile}"]
    pid = os.posix_spawn(
        program,
        [program, *options, "--remote-debugging-pipe"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, their_source, 3),
            (os.POSIX_SPAWN_DUP2, their_sink, 4),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
    )
    os.close(their_source)
    os.close(their_sink)
    try:
        yield Page(our_source, our_sink)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(our_source)
        os.close(our_sink)


def _move(end: int) -> int:
    """A pipe's end with a number out of the way of 3 and 4, where Chromium looks for its own."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved
