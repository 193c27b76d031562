"""The program that a completion holds: in a fence, in plain text, or as the rest of the prompt."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# A fence's opening may stand behind words on its line, where it names a language at most; its
# closing may stand behind code.
_OPENS = re.compile(
    r"(?P<mark>(?:(?<=^)|(?<=^[-*>] )|(?<=^\d\. ))(?:`{3,}|~{3,})(?=[^`]*$)"
    r"|(?:`{3,}|~{3,})(?=[ \t]*[\w+#.-]*[ \t]*$))"
)
_ON_ONE_LINE = re.compile(r"```(?:python3?|py)?[ \t]+(.+?)```")
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.)(?: |$)")
_STARTS = re.compile(r"(?:async def|def|class|import|from)\s|@\w")
_MOST_STARTS = 16  # places at which a program in plain text is looked for
_DEFINITIONS = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign),
)

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_RETURNS = (ast.Return, ast.Yield, ast.YieldFrom)


class Extract(NamedTuple):
    """A program's text, and whether the completion says where it ends."""

    code: str
    closed: bool


class _Block(NamedTuple):
    text: str
    closed: bool


def extract(completion: str, prompt: str, entry: str) -> Extract | None:
    """The program that a completion gives for the function `entry`, or None if it gives none.

    The last block that defines the function counts, with what other blocks before it define
    and the imports and helpers of `prompt`, a program that ends with the function's header. Where
    nothing defines it, the completion is tried as the body that `prompt` lacks. Lines of a
    console keep what stands behind ">>>".
    """
    text = completion.replace("\r\n", "\n").replace("\xa0", " ").replace("\t", "    ")
    text = re.sub("[\ufeff\u200b-\u200d]", "", text)
    blocks = list(_fenced(text))
    for i in reversed(range(len(blocks))):
        if tree := _defining(blocks[i].text, entry):
            earlier = [node for block in blocks[:i] for node in _definitions(block.text)]
            return Extract(_joined(_preamble(prompt, entry), earlier, tree), blocks[i].closed)
    if tree := _defining(text, entry):
        return Extract(_joined(_preamble(prompt, entry), tree), False)
    for block in [*reversed(blocks), _Block(text, False)]:
        if prompt and (tree := _completed(prompt, block.text, entry)):
            return Extract(_joined(tree), block.closed)
    return None


def header(program: str, entry: str) -> str:
    """The header of the function `entry` without names and types: the same for all programs whose
    function must be given as much."""
    tree = parsed(program)
    for node in reversed(tree.body if tree else []):
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            given = len(node.args.args) - len(node.args.defaults)
            return f"def {entry}({', '.join(f'x{i}' for i in range(given))}):"
    return ""


def stated(completion: str) -> str:
    """The last fenced block of a completion, else all of it: what a person is shown."""
    blocks = list(_fenced(completion.replace("\r\n", "\n")))
    return blocks[-1].text.strip("\n") if blocks else completion.strip()


def parsed(code: str) -> ast.Module | None:
    """A program's statements, or None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _fenced(text: str) -> Iterator[_Block]:
    """The fenced blocks in order; the last may lack its closing fence."""
    inside: list[str] | None = None
    mark = ""
    for line in text.split("\n"):
        if inside is None:
            if single := _ON_ONE_LINE.search(line):
                yield _Block(single[1], True)
            elif opening := _OPENS.search(line.strip()):
                inside, mark = [], opening["mark"]
            continue
        before, closing, after = line.rpartition(mark)
        if closing and not after.strip(mark[0] + " "):
            yield _Block("\n".join([*inside, before.rstrip(mark[0])]), True)
            inside = None
        else:
            inside.append(line)
    if inside is not None:
        yield _Block("\n".join(inside), False)


def _defining(text: str, entry: str) -> list[ast.stmt]:
    """The last stretch of a text that is a program and defines `entry`, after what the stretches
    before it define; empty if there is none."""
    if entry not in text:
        return []
    stretches = list(_stretches(_without_console(textwrap.dedent(text)).split("\n")))
    for i in reversed(range(len(stretches))):
        if any(entry in _names(node) for node in stretches[i]):
            before = [node for stretch in stretches[:i] for node in stretch]
            return [*(node for node in before if isinstance(node, _DEFINITIONS)), *stretches[i]]
    return []


def _stretches(lines: Sequence[str]) -> Iterator[list[ast.stmt]]:
    """The longest programs in a text, from places where one may start. A word or a mark in brackets
    is an expression, but no part of a program."""
    starts = [0, *(i for i, line in enumerate(lines) if i and _STARTS.match(line))]
    end = tries = 0
    for start in starts:
        if start < end or tries == _MOST_STARTS:
            continue
        tree, count = _longest(lines[start:])
        yield [node for node in tree if not _idle(node)]
        end, tries = start + count, tries + 1


def _idle(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Constant)


def _longest(lines: Sequence[str]) -> tuple[list[ast.stmt], int]:
    """The statements of the longest beginning of `lines` that is a program, and its lines."""
    end = len(lines)
    while end > 0:
        code = "\n".join(lines[:end])
        if tree := parsed(code):
            return tree.body, end
        end = min(end, max(_fault(code), 1)) - 1
    return [], 0


def _fault(code: str) -> int:
    """The line, from 1, at which a text stops being a program."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return code.count("\n") + 1


def _without_console(text: str) -> str:
    """A console's input lines without their prompts, if there are any: the others are output."""
    lines = text.split("\n")
    typed = [line for line in lines if _PROMPT.match(line)]
    if not typed or not any("def " in line for line in typed):
        return text
    return "\n".join(_PROMPT.sub("", line) for line in typed)


def _definitions(text: str) -> list[ast.stmt]:
    tree = parsed(textwrap.dedent(text))
    return [node for node in tree.body if isinstance(node, _DEFINITIONS)] if tree else []


def _preamble(prompt: str, entry: str) -> list[ast.stmt]:
    """What a prompt defines and imports besides `entry`."""
    tree = parsed(prompt + "\n    pass\n") if prompt else None
    if tree is None:
        return []
    nodes = [node for node in tree.body if isinstance(node, _DEFINITIONS)]
    return [node for node in nodes if entry not in _names(node)]


def _completed(prompt: str, body: str, entry: str) -> list[ast.stmt]:
    """`prompt` with the body that its last function lacks; empty if `body` is none."""
    body = body.strip("\n").rstrip()
    head = prompt.rstrip().split("\n")
    for indented in (body, "    " + body, textwrap.indent(body, "    ")):
        tree, _ = _longest([*head, *indented.split("\n")])
        if any(entry in _names(node) and _returns(node) for node in tree):
            return tree
    return []


def _returns(node: ast.AST) -> bool:
    """Whether a function's own body returns something, and not a function within it alone."""
    inner = (child for child in ast.iter_child_nodes(node) if not isinstance(child, _FUNCTIONS))
    return any(isinstance(child, _RETURNS) or _returns(child) for child in inner)


def _joined(*parts: Sequence[ast.stmt]) -> str:
    """One program of several parts, imports of the future first, as the language has it."""
    nodes = [node for part in parts for node in part]
    future = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    others = [node for node in nodes if node not in future]
    return ast.unparse(ast.Module([*future, *others], []))


def _names(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name for alias in node.names}
    return set()
