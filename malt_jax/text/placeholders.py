"""The placeholders of a prompt: `{name}` is filled in, `{{name}}` stands for a literal `{name}`.

Braces around anything but a single identifier, as in `\\boxed{}` or `\\frac{1}{2}`, are left alone.
"""

import re
from collections.abc import Callable

_PLACEHOLDER = re.compile(r"\{\{(?P<literal>[^\W\d]\w*)\}\}|\{(?P<field>[^\W\d]\w*)\}")


def fields(prompt: str) -> tuple[str, ...]:
    """The names of a prompt's placeholders, each once, in the order in which they first appear."""
    names = (match["field"] for match in _PLACEHOLDER.finditer(prompt))
    return tuple(dict.fromkeys(name for name in names if name is not None))


def fill(prompt: str, value: Callable[[str], str]) -> str:
    """The prompt with `value(name)` for each placeholder and `{name}` for each `{{name}}`.

    Values are not searched for placeholders.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match["field"]
        return f"{{{match['literal']}}}" if name is None else value(name)

    return _PLACEHOLDER.sub(replaced, prompt)
