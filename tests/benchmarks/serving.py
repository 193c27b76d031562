"""How an endpoint answers under load, as JSON on standard output: requests a second, the time to
the first token, and the time a token, at p50, p95 and p99, for 1 to 64 clients at a time.

python tests/benchmarks/serving.py --url=http://127.0.0.1:8000 --seconds=600 > serving.json

The endpoint runs already (`malt_jax --config=... --stage=serve`), or is another program's that
speaks OpenAI's chat completions, such as llama.cpp's server with `--model=NAME`. Each client sends
its next request when the last one is answered; a request that is not answered once and whole counts
as lost. Only the standard library is needed.
"""

import argparse
import http.client
import itertools
import json
import os
import statistics
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CLIENTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Seen:
    """What the clients of a level saw, in seconds."""

    first: list[float] = field(default_factory=list)  # from the request to the first text
    token: list[float] = field(default_factory=list)  # a token after the first, a request each
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    lost: int = 0


def ask(url: str, model: str, question: str, max_tokens: int, seen: Seen) -> None:
    """One request, streamed."""
    place = urlsplit(url)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.netloc, timeout=300)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("MALT_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    started, first, usage, ends = time.perf_counter(), 0.0, {}, 0
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        for line in connection.getresponse():
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", ()):
                delta = choice.get("delta", {})
                if not first and (delta.get("content") or delta.get("reasoning_content")):
                    first = time.perf_counter()
                ends += choice.get("finish_reason") is not None
    except (OSError, ValueError, http.client.HTTPException):
        ends = 0
    finally:
        connection.close()
    ended, written = time.perf_counter(), usage.get("completion_tokens", 0)
    if ends != 1 or not first:
        seen.lost += 1
        return
    seen.first.append(first - started)
    seen.whole.append(ended - started)
    seen.tokens += written
    if written > 1:
        seen.token.append((ended - first) / (written - 1))


def level(url: str, model: str, clients: int, seconds: float, max_tokens: int) -> dict:
    """What so many clients at a time come to."""
    numbers, stop = itertools.count(), time.monotonic() + seconds
    every = [Seen() for _ in range(clients)]

    def client(seen: Seen) -> None:
        while time.monotonic() < stop:
            n = next(numbers)
            ask(url, model, f"{n % 9 + 1}+{n // 9 % 9 + 1}-{n // 81 % 9 + 1}", max_tokens, seen)

    threads = [threading.Thread(target=client, args=(seen,)) for seen in every]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - started
    answered = sum(len(seen.whole) for seen in every)
    return {
        "clients": clients,
        "seconds": took,
        "answered": answered,
        "lost": sum(seen.lost for seen in every),
        "requests_per_second": answered / took,
        "tokens_per_second": sum(seen.tokens for seen in every) / took,
        **{
            name: quantiles([value for seen in every for value in getattr(seen, name)])
            for name in ("first", "token", "whole")
        },
    }


def quantiles(seconds: list[float]) -> dict[str, float] | None:
    """p50, p95 and p99; None of fewer than two values."""
    if len(seconds) < 2:
        return None
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def main() -> None:
    """Goes through the levels and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="team")
    parser.add_argument("--seconds", type=float, default=600.0, help="of all levels together")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--max-tokens", type=int, default=64)
    flags = parser.parse_args()
    share = flags.seconds / len(flags.clients)
    levels = [
        level(flags.url, flags.model, clients, share, flags.max_tokens) for clients in flags.clients
    ]
    print(json.dumps({"url": flags.url, "model": flags.model, "levels": levels}, indent=2))


if __name__ == "__main__":
    main()
