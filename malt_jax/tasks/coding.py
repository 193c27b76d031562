"""Programming problems, whose answers are programs: HumanEval (Chen et al., arXiv 2107.03374),
MBPP (Austin et al., arXiv 2108.07732), and anybody's rows of a prompt, tests and an entry point.

A problem's reference answer is a JSON object: `entry`, the function that is asked for; `prompt`,
the program that ends with its header, or ""; `setup`, statements that its tests need; `tests`, each
of which fails by raising.
"""

import ast
import builtins
import json
import keyword
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from malt_jax.tasks import code
from malt_jax.tasks.probes import probes
from malt_jax.tasks.program import Program
from malt_jax.tasks.task import Choices, Hub, Row, Task, id_field, text_field
from malt_jax.types import Question

_HINT = "the whole Python function in one ```python block"
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_NAME = re.compile(r"[A-Za-z_]\w*")


class Problem(NamedTuple):
    """What a program is held to; the reference answer's fields."""

    entry: str
    prompt: str
    setup: str
    tests: tuple[str, ...]


def reference(answer: str, choices: Choices = ()) -> str | None:
    """A reference in its canonical form, or None for a text that is none."""
    problem = _read(answer)
    return _written(problem) if problem else None


def program(completion: str, answer: str, question: str) -> Program | None:
    """The program of a completion, or None if it holds none. Where there is no reference (a
    question that is asked, not tested), `question` says what is asked for, and nothing is tested.

    Raises:
        ValueError: for a reference that is none.
    """
    problem = _read(answer) if answer else _asked(question)
    if problem is None:
        raise ValueError(f"reference answer {answer[:60]!r} is no problem's; write the rows anew")
    extract = code.extract(completion, problem.prompt, problem.entry)
    if extract is None:
        return None
    header = problem.prompt or code.header(extract.code, problem.entry)
    calls = probes(question or problem.prompt, header, problem.entry)
    return Program(extract.code, problem.entry, problem.setup, problem.tests, calls, extract.closed)


def read_humaneval(row: Row) -> Question:
    """A row of `task_id`, `prompt`, `entry_point`, `test` and maybe `canonical_solution`."""
    prompt, entry = text_field(row, "prompt"), _entry(row)
    setup, tests = split_tests(text_field(row, "test"), "test")
    body = text_field(row, "canonical_solution") if "canonical_solution" in row else ""
    return _question(
        id_field(row, "task_id"),
        f"Complete this Python function:\n\n```python\n{prompt.strip()}\n```",
        Problem(entry, prompt, f"{_stub(prompt)}\n{setup}", tests),
        f"{prompt.rstrip()}\n{body.rstrip()}" if body else "",
    )


def read_mbpp(row: Row) -> Question:
    """A row of `task_id`, `text` (`prompt` in the sanitized form), `test_list`, and maybe `code`,
    `challenge_test_list`, `test_setup_code` and `test_imports`. The first test is shown, because
    nothing else says what the function is called."""
    text = text_field(row, "text" if "text" in row else "prompt")
    listed = [*_texts(row, "test_list"), *_texts(row, "challenge_test_list")]
    if not listed:
        raise ValueError("field 'test_list' is empty; give at least one assertion")
    for test in listed:
        _compiled(test, "test_list")
    entry = _called(listed[0])
    before = row.get("test_setup_code") or ""
    first = f"{before}\n{listed[0]}" if isinstance(before, str) else listed[0]
    _compiled(first, "test_setup_code")
    imports = "\n".join(_texts(row, "test_imports"))
    _compiled(imports, "test_imports")
    solution = text_field(row, "code") if row.get("code") else ""
    return _question(
        id_field(row, "task_id"),
        f"{text.strip()}\n\nThe program must pass this test:\n```python\n{listed[0].strip()}\n```",
        Problem(entry, "", imports, (first, *listed[1:])),
        solution.replace("\r\n", "\n").strip(),
    )


def read_codejsonl(row: Row) -> Question:
    """A row of `prompt`, `tests` (a text, or a list of statements), `entry_point`, and maybe `id`,
    `setup` and `solution`. A prompt that is a program ends with the function's header."""
    prompt, entry = text_field(row, "prompt"), _entry(row)
    setup = text_field(row, "setup") if row.get("setup") else ""
    _compiled(setup, "setup")
    if isinstance(row.get("tests"), str):
        before, tests = split_tests(text_field(row, "tests"), "tests")
        setup = f"{setup}\n{before}"
    else:
        tests = tuple(_statement(test, "tests") for test in _texts(row, "tests"))
    if not tests:
        raise ValueError("field 'tests' is empty; give at least one statement that can fail")
    unfinished = bool(_stub(prompt))
    asked = f"Complete this Python function:\n\n```python\n{prompt.strip()}\n```"
    return _question(
        id_field(row, "id"),
        asked if unfinished else f"{prompt.strip()}\n\nThe function is called `{entry}`.",
        Problem(entry, prompt if unfinished else "", f"{_stub(prompt)}\n{setup}", tests),
        text_field(row, "solution").strip() if row.get("solution") else "",
    )


def split_tests(source: str, name: str) -> tuple[str, tuple[str, ...]]:
    """A test file as its setup and its tests: the statements of `check(candidate)`, or, where
    there is no such function, of the file. What stands before an assertion goes with it; an
    assertion of a constant is none.

    Raises:
        ValueError: naming the field for a file that does not compile, or tests nothing.
    """
    tree = _compiled(source, name)
    setup, body, before = list[ast.stmt](), tree.body, list[ast.stmt]()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "check" and node.args.args:
            setup = [other for other in tree.body if other is not node]
            body = node.body
            argument = node.args.args[0].arg
            before = ast.parse(f"{argument} = candidate").body if argument != "candidate" else []
    tests = []
    for node in body:
        if calls := _calls([node]):
            tests.append(ast.unparse(ast.Module([*before, node, *calls], [])))
            before = []
        elif _asserts(node):
            tests.append(ast.unparse(ast.Module([*before, node], [])))
            before = []
        elif not isinstance(node, ast.Assert):
            before.append(node)
    if not tests:
        raise ValueError(f"field {name!r} asserts nothing; give assertions")
    try:
        for test in tests:
            compile(test, name, "exec")
    except SyntaxError:  # a `return` in `check`, say: it is one test as it stands
        return source, ("check(candidate)",)
    return ast.unparse(ast.Module(setup, [])), tuple(tests)


def _asserts(node: ast.stmt) -> bool:
    """Whether a statement asserts something when it is run, other than a constant."""
    if isinstance(node, _DEFINITIONS):
        return False
    asserted = [inner for inner in ast.walk(node) if isinstance(inner, ast.Assert)]
    return any(not isinstance(inner.test, ast.Constant) for inner in asserted)


def _calls(nodes: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The calls of those test functions that `nodes` define: to define one tests nothing."""
    names = [n.name for n in nodes if isinstance(n, ast.FunctionDef) and not n.args.args]
    return [ast.parse(f"{name}()").body[0] for name in names if name.startswith("test")]


def _statement(source: str, name: str) -> str:
    """A test of a list, with calls of the test functions that it defines. Raises ValueError as
    `_compiled` does, and for one that only defines things."""
    body = _compiled(source, name).body
    calls = _calls(body)
    if all(isinstance(node, _DEFINITIONS) for node in body) and not calls:
        raise ValueError(f"field {name!r} tests nothing in {source[:60]!r}; give statements")
    return ast.unparse(ast.Module([*body, *calls], [])) if calls else source


_DEFINITIONS = (*(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom),)


def _question(name: str, text: str, problem: Problem, solution: str) -> Question:
    worked = f"```python\n{solution}\n```" if solution else ""
    return Question(name, text, _written(problem), solution=worked)


def _written(problem: Problem) -> str:
    return json.dumps(problem._asdict(), ensure_ascii=False)


def _read(answer: str) -> Problem | None:
    try:
        fields = json.loads(answer)
        problem = Problem(**{**fields, "tests": tuple(fields["tests"])})
    except (ValueError, TypeError, KeyError):
        return None
    texts = [problem.entry, problem.prompt, problem.setup, *problem.tests]
    return problem if all(isinstance(text, str) for text in texts) else None


def _asked(question: str) -> Problem | None:
    """The problem that a question's text shows, without its tests."""
    shown = code.stated(question)
    if stub := _stub(shown):
        defined = [n.name for n in ast.parse(stub).body if isinstance(n, ast.FunctionDef)]
        if defined:
            return Problem(defined[-1], shown, "", ())
    named = re.search(r"The function is called `(\w+)`", question)
    try:
        entry = named[1] if named else _called(shown)
    except ValueError:
        return None
    return Problem(entry, "", "", ())


def _stub(prompt: str) -> str:
    """A prompt that ends with a function's header and docstring as a whole program, or ""."""
    whole = prompt.rstrip() + "\n    pass\n"
    return whole if code.parsed(whole) and "def " in prompt else ""


def _called(test: str) -> str:
    """The function that an assertion is about: the first that it calls and that is not built in."""
    for name in _CALLED.findall(test.partition("assert")[2] or test):
        if name not in _NOT_ASKED_FOR:
            return str(name)
    raise ValueError(f"field 'test_list' calls no function in {test[:60]!r}; name one")


_NOT_ASKED_FOR = {*dir(builtins), *keyword.kwlist, "isclose", "allclose", "Counter", "deepcopy"}


def _entry(row: Row) -> str:
    entry = text_field(row, "entry_point")
    if not _NAME.fullmatch(entry):
        raise ValueError(f"field 'entry_point' holds {entry[:40]!r}; name a function")
    return entry


def _texts(row: Row, name: str) -> list[str]:
    listed = row.get(name)
    if listed is None or (isinstance(listed, Sequence) and not len(listed)):
        return []
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise ValueError(f"field {name!r} holds a {type(listed).__name__}; make it a list of texts")
    return [text_field({name: text}, name) for text in listed]


def _compiled(source: str, name: str) -> ast.Module:
    """A test file's statements. Raises ValueError naming the field and line of what is none, and
    for an import of what no sandbox has."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        place = f" at line {line}" if line else ""
        raise ValueError(f"field {name!r} does not compile{place} ({error}); correct it") from None
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            if module.partition(".")[0] not in sys.stdlib_module_names:
                raise ValueError(
                    f"field {name!r} imports {module}, but a sandbox has the standard library "
                    "alone; write the test without it"
                )
    return tree


HUMANEVAL = Task(
    name="humaneval",
    program=program,
    answer=code.stated,
    hub=Hub("openai/openai_humaneval", None, {"eval": "test"}),
    answer_hint=_HINT,
    read_row=read_humaneval,
    reference=reference,
)
MBPP = Task(
    name="mbpp",
    program=program,
    answer=code.stated,
    hub=Hub("google-research-datasets/mbpp", "full", {"train": "train", "eval": "test"}),
    answer_hint=_HINT,
    read_row=read_mbpp,
    reference=reference,
)
CODEJSONL = Task(
    name="codejsonl",
    program=program,
    answer=code.stated,
    answer_hint=_HINT,
    read_row=read_codejsonl,
    reference=reference,
)
