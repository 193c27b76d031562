"""What the site makes from the code: `<!-- made: NAME -->` in a page is replaced by what NAME is
made of, so that no page can fall behind the code."""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the configs of a checkout

_MARK = re.compile(r"<!-- made: ([\w./ ]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with every mark replaced. Raises KeyError for a mark that nothing makes."""
    return _MARK.sub(lambda mark: made(mark[1]), markdown)


def made(mark: str) -> str:
    """The Markdown of a mark: `settings`, `schema NAME`, `api PACKAGE`, `examples DIRECTORY`
    or `code FILE`."""
    kind, _, name = mark.partition(" ")
    makers: dict[str, Callable[[str], str]] = {
        "settings": lambda _: settings(),
        "schema": lambda name: schema(schemas()[name]),
        "api": lambda name: "\n\n".join(f"::: {module}" for module in modules(name)),
        "examples": examples,
        "code": lambda name: f"```python\n{(ROOT / name).read_text()}```",
    }
    return makers[kind](name)


def settings() -> str:
    """Every setting: key, type, default, meaning, rule; a table a group, those of none first."""
    from malt_jax import recipe

    header, line, *rows = recipe.reference().splitlines()
    groups: dict[str, list[str]] = {"run": []}
    for row in rows:
        _, *names = row.split("`")[1].split(".")
        groups.setdefault(names[0] if len(names) > 1 else "run", []).append(row)
    return "\n\n".join(
        "\n".join([f"## {group}", "", header, line, *rows]) for group, rows in groups.items()
    )


def schemas() -> dict[str, pa.Schema]:
    """Every Parquet file of a work directory by the name that `docs/reference/disk.md` uses."""
    from malt_jax.evaluate import audit, scoring
    from malt_jax.learn.phases import PHASES
    from malt_jax.rollout import records

    return {
        "trees": records.SCHEMA,
        **{name: phase.schema for name, phase in PHASES.items()},
        "outcomes": scoring.SCHEMA,
        "predictions": scoring.PREDICTIONS,
        "audit": audit.SCHEMA,
    }


MEANINGS = {
    "advantage": "the value less the mean of its siblings' values, its own included",
    "answer": "the answer in its canonical form, as the run graded it; a vote counts these",
    "behaviour_logprobs": "of each completion token, in nats, under the distribution that was "
    "sampled: temperature, top-k, top-p",
    "chosen": "the positive completion",
    "chosen_token_ids": "its tokens",
    "completion": "what the role wrote",
    "completion_token_ids": "its tokens",
    "completion_tokens": "how many tokens were written",
    "finish_reason": "`stop`, or `length` where the completion ran to its limit",
    "label": "whether the value is above the threshold",
    "lenient_answer": "the answer by lenient reading",
    "lenient_status": "the verdict on it",
    "logprob": "of the whole completion, in nats, under the model itself",
    "logprobs": "of each completion token, in nats, under the model itself",
    "node": "the node's index in its question's tree: by depth, then by path",
    "parent": "the index of its parent; -1 at a root",
    "novel_tokens": "how many of the tokens read no earlier prompt of the answer begins with",
    "path": "child indices from the root; the random key follows from it",
    "policy": "a hash of the base and the adapter that drew the sample",
    "prompt": "what the model was given, chat template included",
    "prompt_token_ids": "its tokens",
    "prompt_tokens": "how many tokens were read",
    "question": "the question's text",
    "question_id": "the question's id, unique in its split",
    "reference": "the reference answer",
    "rejected": "the negative completion",
    "rejected_token_ids": "its tokens",
    "role": "the role's name",
    "round": "the round of learning; 0 is the base",
    "sample": "the pass, from 0",
    "score": "the grade in [0, 1]; null where there is no verdict",
    "sibling_values": "the values of all that the parent's policy drew there, its own first",
    "source": "the directory: `trees`, `eval/base`, `eval/malt`, ...",
    "status": "`correct`, `wrong`, `unparseable`, `truncated`, `unknown`; empty where no answer "
    "was asked for",
    "strict_answer": "the answer by strict reading: marked answers alone",
    "strict_status": "the verdict on it",
    "system": "the system's name",
    "value": "the node's value, which its label follows from",
    "values": "the values of chosen and rejected",
    "via": "the rule that read the answer: `final_answer`, `boxed`, `hashes`, `fallback`, `grader`",
}


def schema(columns: pa.Schema) -> str:
    """A table of a schema's columns. Raises KeyError for a column that `MEANINGS` lacks."""
    rows = (f"| `{c.name}` | `{_arrow_type(c.type)}` | {MEANINGS[c.name]} |" for c in columns)
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def _arrow_type(kind: pa.DataType) -> str:
    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


def modules(name: str) -> Iterator[str]:
    """The dotted names of a module and of the public ones below it that have a docstring to
    show."""
    module = importlib.import_module(name)
    if module.__doc__:
        yield name
    for below in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not below.name.startswith("_"):
            yield from modules(f"{name}.{below.name}")


def examples(directory: str) -> str:
    """A table of a directory's programs with the first sentence of each one's docstring."""
    rows = []
    for path in sorted((ROOT / directory).glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        summary = re.split(r"(?<=\.)\s", " ".join(text.partition("\n\n")[0].split()))[0]
        rows.append(f"| `{directory}/{path.name}` | {summary} |")
    return "\n".join(["| file | content |", "|---|---|", *rows])
