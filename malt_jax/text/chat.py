"""Chat templates: programs in Jinja that come with a model, and may be broken or hostile.

They are rendered in a process of their own, which has none of this one's environment and a limit on
time and memory, with what transformers offers them: its sandbox, tags, filters and functions.
`tools` and `documents` are None, and the clock stands still.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 5
WALL_SECONDS = 120  # for a machine that is busy with other things
MEMORY = 1 << 30  # bytes, of addresses
MAX_CHARACTERS = 1 << 20  # of a rendered chat
_TODAY = datetime(2024, 7, 26)  # Llama 3's own fallback; a clock would change prompts daily
Message = Mapping[str, str]


def render(
    source: str, messages: Sequence[Message], special: Mapping[str, str], *, generate: bool
) -> str:
    """The text of a chat; with `generate` up to where the assistant begins to write.

    `special` are the tokens that the template may name (bos_token, ...). Raises ValueError, in one
    line, for a template that is no Jinja, refuses these messages, reaches for what is not its own,
    or takes more than its share of time or memory.
    """
    request = {
        "source": source,
        "variables": {
            "messages": messages,
            "add_generation_prompt": generate,
            "tools": None,
            "documents": None,
            **special,
        },
    }
    return _rendered(json.dumps(request))


@lru_cache(maxsize=256)
def _rendered(request: str) -> str:
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            input=request.encode("ascii"),
            capture_output=True,
            timeout=WALL_SECONDS,
            check=False,
            env={"PYTHONPATH": paths},
        )
        reply: dict[str, str] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):  # killed by its limit
        reply = {
            "error": f"takes more than {CPU_SECONDS} s or {MEMORY >> 20} MiB, or cannot be run"
        }
    if "error" in reply:
        raise ValueError(f"chat template: {' '.join(reply['error'].split())[:300]}")
    return reply["text"]


class _Generation(Extension):
    """Transformers' own tag, `{% generation %}`: it marks what the assistant wrote and changes no
    text."""

    tags = {"generation"}  # noqa: RUF012 (the name and type are Jinja's)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _environment() -> jinja2.Environment:
    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _TODAY.strftime
    return environment


def _reply(source: str, variables: Mapping[str, Any]) -> dict[str, str]:
    try:
        text = _environment().from_string(source).render(**variables)
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}"}
    except (MemoryError, OverflowError, RecursionError) as error:
        return {"error": f"asks for too much: {type(error).__name__} {error}"}
    except jinja2.TemplateError as error:  # its own refusals, and the sandbox's
        return {"error": str(error)}
    except Exception as error:  # a template may raise anything
        return {"error": f"{type(error).__name__}: {error}"}
    if len(text) > MAX_CHARACTERS:
        return {"error": f"makes {len(text):,} characters of a short chat"}
    return {"text": text}


def _main() -> None:
    """Answers one request from standard input on standard output."""
    request = json.load(sys.stdin)
    for limit, most in ((resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_AS, MEMORY)):
        with contextlib.suppress(ValueError, OSError):  # where the system knows no such limit
            resource.setrlimit(limit, (most, most))
    sys.stdout.write(json.dumps(_reply(**request)))


if __name__ == "__main__":
    _main()
