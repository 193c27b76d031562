"""Which program a completion holds, and how the calls are chosen by which programs are told
apart."""

import ast

import pytest

from malt_jax.tasks import code
from malt_jax.tasks.probes import probes

PROMPT = (
    "from typing import List\n\ndef helper(x):\n    return x\n\n"
    'def total(xs: List[int]) -> int:\n    """The sum.\n    >>> total([1, 2])\n    3\n    """\n'
)
GOOD = "def total(xs):\n    return sum(xs)"
BAD = "def total(xs):\n    return 0"


def value(completion: str, prompt: str = PROMPT) -> object:
    """What the extracted function makes of [1, 2, 3]; None where nothing is extracted."""
    extract = code.extract(completion, prompt, "total")
    if extract is None:
        return None
    names: dict[str, object] = {}
    exec(extract.code, names)
    return names["total"]([1, 2, 3])  # type: ignore[operator]


COMPLETIONS = {
    "a fence": f"```python\n{GOOD}\n```",
    "prose around": f"Sure! Here it is:\n\n```python\n{GOOD}\n```\nIt adds the `xs`. Done.",
    "a fence with a title": f'```python title="total.py" {{linenos=1}}\n{GOOD}\n```',
    "a fence with a title, indented": f'```python title="t"\n{GOOD}\n```'.replace("\n", "\n  "),
    "a fence in a list": f"- ```python\n  {GOOD}\n  ```".replace("\n    ", "\n      "),
    "a mention of a fence": f"I use ``` for code.\n\n```python\n{GOOD}\n```",
    "marks of other data sets": f"[BEGIN]\n{GOOD}\n[DONE]",
    "plain, the last of two": f"Theirs:\n\n{BAD}\n\nThat is wrong, so:\n\n{GOOD}\n\nDone.",
    "plain, with a label": f"Solution: below\n{GOOD}\nNote: simple",
    "plain, a helper and words between": (
        "def add(a, b):\n    return a + b\n\nWith it, we write:\n\n"
        "def total(xs):\n    t = 0\n    for x in xs: t = add(t, x)\n    return t"
    ),
    "marks that nobody sees": f"\ufeff```python\n\u200b{GOOD}\n```",
    "no language": f"```\n{GOOD}\n```",
    "another language's name": f"```Python3\n{GOOD}\n```",
    "tildes": f"~~~py\n{GOOD}\n~~~",
    "an unclosed fence": f"I add them.\n```python\n{GOOD}\n",
    "the last of two": f"```python\n{BAD}\n```\nThat is wrong. Better:\n```python\n{GOOD}\n```",
    "an example behind it": f"```python\n{GOOD}\n```\nUse:\n```python\nprint(total([1]))\n```",
    "output behind it": f"```python\n{GOOD}\n```\nOutput:\n```\n6\n```",
    "a helper in an earlier fence": (
        "```python\ndef add(a, b):\n    return a + b\n```\nand\n```python\n"
        "def total(xs):\n    t = 0\n    for x in xs: t = add(t, x)\n    return t\n```"
    ),
    "an import in an earlier fence": (
        "```python\nimport math\n```\n```python\ndef total(xs):\n    return int(math.fsum(xs))\n```"
    ),
    "the prompt's import and helper": (
        "```python\ndef total(xs: List[int]):\n    return helper(sum(xs))\n```"
    ),
    "an indented fence": "1. So:\n   ```python\n   def total(xs):\n       return sum(xs)\n   ```",
    "a fence behind words": f"The code: ```python\n{GOOD}\n```",
    "a closing fence behind code": f"```python\n{GOOD}```",
    "one line": "`total` is ```python total = lambda xs: sum(xs)```",
    "plain": GOOD,
    "plain with prose": f"Here is the function you asked for:\n\n{GOOD}\n\nIt's simple, isn't it?",
    "plain with an import": f"Answer:\nimport math\n\n{GOOD}\nThis returns 6.",
    "the whole prompt again": f"```python\n{PROMPT}    return sum(xs)\n```",
    "the body": "    return sum(xs)\n",
    "the body, dedented": "t = 0\nfor x in xs:\n    t += x\nreturn t",
    "the body, its first line dedented": "t = 0\n    for x in xs:\n        t += x\n    return t",
    "the body in a fence": "```python\n    return sum(xs)\n```",
    "the body and then other things": "    return sum(xs)\n\n\nThe sum it is.\n\ndef other(): 1",
    "a console": ">>> def total(xs):\n...     return sum(xs)\n...\n>>> total([1])\n1",
    "a console in a fence": (
        "```\n>>> def total(xs):\n...     return sum(xs)\n>>> total([1])\n1\n```"
    ),
    "carriage returns": f"```python\r\n{GOOD}\r\n```".replace("\n", "\r\n"),
    "hard blanks": f"```python\n{GOOD}\n```".replace("    ", "\xa0\xa0\xa0\xa0"),
    "tabs": "```python\ndef total(xs):\n\treturn sum(xs)\n```",
    "the future": f"```python\nfrom __future__ import annotations\n{GOOD}\n```",
    "a decorated function": (
        f"```python\nimport functools\n@functools.lru_cache\ndef h(): ...\n{GOOD}\n```"
    ),
    "a class beside it": f"```python\nclass A:\n    pass\n\n{GOOD}\n```",
    "a broken line behind it": f"```python\n{GOOD}\n\nprint(total([1, 2)\n```",
    "a fence in a docstring": (
        '```python\ndef total(xs):\n    """Say ``sum``."""\n    return sum(xs)\n```'
    ),
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_the_program_is_found(name: str) -> None:
    assert value(COMPLETIONS[name]) == 6


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I cannot do that.",
        "The sum of the list.",
        "```python\ndef other(xs):\n    return sum(xs)\n```",
        "```python\ndef total(xs)\n    return sum(xs)\n```",
        "```\n6\n```",
        "total([1, 2]) == 3",
        "(" * 5000,
        "```python\n" + "[" * 5000 + "total" + "]" * 5000,
    ],
)
def test_what_holds_no_program_has_none(completion: str) -> None:
    assert code.extract(completion, PROMPT, "total") is None


def test_without_a_prompt_there_is_no_body_to_complete() -> None:
    assert value("    return sum(xs)", "") is None
    assert value(GOOD, "") == 6


def test_only_a_closed_fence_says_where_a_program_ends() -> None:
    for name, closed in (("a fence", True), ("an unclosed fence", False), ("plain", False)):
        extract = code.extract(COMPLETIONS[name], PROMPT, "total")
        assert extract is not None
        assert extract.closed is closed


def test_a_person_is_shown_the_last_block() -> None:
    assert code.stated(COMPLETIONS["the last of two"]) == GOOD
    assert code.stated("  no code ") == "no code"


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        "Write total.\n```python\nassert total([1, 2]) == 3\n```",
        "total([1, 2]) ==> 3",
        "Examples: total([1, 2]) returns 3; mytotal([9]) is another.",
    ],
)
def test_calls_that_a_text_shows_come_first_and_are_varied(text: str) -> None:
    calls = probes(text, "", "total")
    assert calls[0] == "total([1, 2])"
    assert len(set(calls)) == len(calls) > 8
    assert all(isinstance(ast.literal_eval(call[6:-1]), list) for call in calls)
    assert probes(text, "", "total") == calls
    assert probes(text + " ", "", "total")[1:] != calls[1:]


def test_where_none_is_shown_the_header_tells_the_types() -> None:
    header = 'def total(n: int, name: str, xs: list):\n    """No example."""\n'
    calls = probes(header, header, "total")
    assert calls[0] == "total(3, 'abc', [3, 1, 2])"
    assert len(calls) > 8
    assert probes("Nothing.", "", "total") == ()


def test_a_call_of_an_object_is_no_literal_and_stays_as_it_is() -> None:
    assert probes("assert total(Node(3)) == 3", "", "total") == ("total(Node(3))",)
