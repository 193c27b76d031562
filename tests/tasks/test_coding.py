"""Programming problems: their rows in published forms, and the verdicts on programs."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import planted_programs as planted
import pytest

from malt_jax import grading, tasks
from malt_jax.grading import Sample
from malt_jax.tasks import coding
from malt_jax.tasks.task import Task

HUMANEVAL, MBPP, CODEJSONL = map(tasks.get, ("humaneval", "mbpp", "codejsonl"))
needs_sandbox = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="no sandbox: apt-get install bubblewrap"
)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    grading.close()


def statuses(task: Task, row: dict[str, Any], *completions: str) -> list[str]:
    question = task.read_row(row)
    answer = task.reference(question.answer, ())
    assert answer is not None
    samples = [Sample(text, answer, question=question.text) for text in completions]
    return [grade.status for grade in grading.grade(task, samples)]


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


@needs_sandbox
def test_humaneval_rows_are_read_and_graded() -> None:
    question = HUMANEVAL.read_row(planted.ROW)
    assert question.id == "Test/0"
    assert question.text.startswith("Complete this Python function:\n\n```python\ndef double")
    assert planted.told(question.answer)["tests"] == [
        "assert candidate(2) == 4",
        "assert candidate(-3) == -6",
        "assert candidate(0) == 0",
    ]
    body = "    return x * 2"
    wrong = fenced("def double(x):\n    return x ** 2")
    given = [question.solution, body, planted.RIGHT, wrong, "Twice."]
    graded = statuses(HUMANEVAL, planted.ROW, *given)
    assert graded == ["correct", "correct", "correct", "wrong", "unparseable"]


@needs_sandbox
def test_mbpp_rows_are_read_and_graded() -> None:
    row = {
        "task_id": 601,
        "text": "Write a function to find the longest chain of pairs.",
        "code": "class Pair(object):\r\n    def __init__(self, a, b):\r\n        self.a = a\r\n"
        "        self.b = b\r\ndef length(pairs):\r\n"
        "    return len([p for p in pairs if p.a < p.b])",
        "test_setup_code": "",
        "test_list": [
            "assert length([Pair(5, 24), Pair(15, 2)]) == 1",
            "assert length([]) == 0",
            "p = Pair(1, 2)\np.b = 0\nassert length([p]) == 0",
        ],
        "challenge_test_list": [],
    }
    question = MBPP.read_row(row)
    assert "length([Pair(5, 24), Pair(15, 2)]) == 1" in question.text
    assert "length([]) == 0" not in question.text
    constant = fenced("class Pair:\n    def __init__(s, a, b): pass\ndef length(x): return 1")
    lacking = fenced("def length(x): return 0")
    assert statuses(MBPP, row, question.solution, constant, lacking) == [
        "correct",
        "wrong",
        "wrong",
    ]
    sanitized = {"prompt": "Add.", "test_imports": ["import math"], "task_id": 2}
    sanitized |= {
        "test_list": ["assert math.isclose(add(1, 2), 3)"],
        "code": "def add(a, b): return a + b",
    }
    assert statuses(MBPP, sanitized, MBPP.read_row(sanitized).solution) == ["correct"]


@pytest.mark.parametrize(
    ("test", "entry"),
    [
        ("assert set(similar((1, 2), (2, 3))) == set((2,))", "similar"),
        ("assert not is_prime(4)", "is_prime"),
        ("assert math.isclose(area(3), 28.27, rel_tol=0.1)", "area"),
        ("assert(odd(3)) == True", "odd"),
        ("assert max(chosen([1]), 2) == 2", "chosen"),
        ("assert Counter(chosen([1])) == Counter([1])", "chosen"),
        ("assert sorted(list(chosen([1]))) == [1]", "chosen"),
    ],
)
def test_an_assertion_says_what_the_function_is_called(test: str, entry: str) -> None:
    question = MBPP.read_row({"text": "Write it.", "test_list": [test]})
    assert planted.told(question.answer)["entry"] == entry


@needs_sandbox
def test_anybodys_rows() -> None:
    plain = {"prompt": "Write a function that adds 1.", "entry_point": "inc"}
    row = plain | {"tests": ["assert inc(1) == 2", "xs = [3]\nassert inc(*xs) == 4"]}
    assert statuses(CODEJSONL, row, fenced("def inc(x): return x + 1")) == ["correct"]
    assert "called `inc`" in CODEJSONL.read_row(row).text
    text = "LIMIT = 3\nfor i in range(LIMIT):\n    assert inc(i) == i + 1\nassert inc(9) == 10"
    question = CODEJSONL.read_row(plain | {"tests": text})
    assert len(planted.told(question.answer)["tests"]) == 2
    assert statuses(CODEJSONL, plain | {"tests": text}, fenced("def inc(x): return x + 1")) == [
        "correct"
    ]
    header = {"prompt": "def inc(x):\n", "entry_point": "inc", "tests": row["tests"]}
    assert statuses(CODEJSONL, header, "    return x + 1") == ["correct"]


@needs_sandbox
def test_a_test_function_is_called_and_a_check_may_name_its_argument() -> None:
    """To define a test passed it: every program did."""
    row = {"prompt": "Add 1.", "entry_point": "inc"}
    forms: list[str | list[str]] = [
        ["def test_inc():\n    assert inc(1) == 2"],
        "LIMIT = 2\ndef test_inc():\n    assert inc(1) == LIMIT\n",
        "def close(a, b):\n    assert a == b\ndef test_inc():\n    close(inc(1), 2)\n",
        "def check(f):\n    assert f(1) == 2\n    x = 3\n    assert f(x) == 4\n",
        "def check(f):\n    if f(1) == 2:\n        return\n    assert f(1) == 2\n",
    ]
    right, wrong = fenced("def inc(x): return x + 1"), fenced("def inc(x): return x")
    for tests in forms:
        assert statuses(CODEJSONL, row | {"tests": tests}, right, wrong) == ["correct", "wrong"]


@needs_sandbox
def test_tests_see_values_and_changes_as_if_the_function_stood_beside_them() -> None:
    tests = [
        "xs = [3, 1]\nassert inc(xs) is None and xs == [1, 3]",
        "d = {'a': 1}\ninc(d)\nassert d == {'a': 1, 'b': 2}",
        "assert inc(2) == (2, {3}, {'k': [None, 1.5, b'x', 2j]}, frozenset({1}))",
        "assert list(inc('gen')) == [0, 1, 2]",
        "try:\n    inc('error')\nexcept KeyError:\n    pass\nelse:\n    assert False",
        "from collections import Counter\nassert inc('count') == Counter('aab')",
        "from decimal import Decimal\nassert inc('decimal') == Decimal('1.1')",
        "assert inc('nan') != inc('nan') and inc('inf') > 10 ** 300",
        "assert inc(10 ** 30)[:2] == (10 ** 30, {10 ** 30 + 1})",
        "assert inc('\\ud800\\u20ac\\n') == '\\u20ac'",
        "assert inc(x=2, y=[1]) == [1, 2]",
    ]
    program = """
from collections import Counter
from decimal import Decimal
def inc(x, y=None):
    if y is not None: return y + [x]
    if isinstance(x, list): x.sort()
    elif isinstance(x, dict): x['b'] = 2
    elif x == 'gen': return (i for i in range(3))
    elif x == 'error': raise KeyError('x')
    elif x == 'count': return Counter('aab')
    elif x == 'decimal': return Decimal('1.1')
    elif x in ('nan', 'inf'): return float(x)
    elif isinstance(x, str): return x[1]
    else: return x, {x + 1}, {'k': [None, 1.5, b'x', 2j]}, frozenset({1})
"""
    row = {"prompt": "Do it.", "entry_point": "inc"}
    for test in tests:
        graded = statuses(CODEJSONL, row | {"tests": [test]}, fenced(program))
        assert graded == ["correct"], test


@needs_sandbox
def test_a_class_may_be_asked_for() -> None:
    row = {"prompt": "Write a class Stack.", "entry_point": "Stack"}
    row |= {
        "tests": [
            "s = Stack([1, 2])\ns.push(3)\nassert len(s) == 3 and s[0] == 1 and 3 in s",
            "assert list(s) == [1, 2, 3] and str(s) == '<1 2 3>' and s.items == [1, 2, 3]",
            "s[0] = 5\nassert s.pop() == 3 and s.items == [5, 2]",
            "assert s != Stack([5, 2])",
        ]
    }
    stack = """
class Stack:
    def __init__(self, items): self.items = items
    def push(self, item): self.items.append(item)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __getitem__(self, place): return self.items[place]
    def __setitem__(self, place, item): self.items[place] = item
    def __iter__(self): return iter(self.items)
    def __str__(self): return f"<{' '.join(map(str, self.items))}>"
    def __eq__(self, other): return True
"""
    assert statuses(CODEJSONL, row, fenced(stack)) == ["correct"]


@needs_sandbox
def test_a_test_that_no_program_could_pass_is_no_verdict(caplog: pytest.LogCaptureFixture) -> None:
    row = {"prompt": "Do it.", "entry_point": "inc"}
    inc = fenced("def inc(x): return 1")
    assert statuses(CODEJSONL, row | {"tests": ["assert inc(lambda: 1)"]}, inc) == ["unknown"]
    broken = {"tests": ["assert inc(1) == 1"], "setup": "LIMIT = int('nope')"}
    assert statuses(CODEJSONL, row | broken, inc) == ["unknown"]
    assert "a function cannot be passed" in caplog.text
    assert "setup of the tests: ValueError" in caplog.text


@needs_sandbox
def test_votes_are_by_behaviour_and_by_no_test() -> None:
    codes = {
        "sum": "def double(x):\n    return x + x",
        "product": "def double(y):\n    'Twice.'\n    return 2 * y",
        "square": "def double(x):\n    return x * x",
        "fails": "def double(x):\n    return x.upper()",
        "fails otherwise": "def double(x):\n    return x.lower()",
        "absent": "def twice(x):\n    return x",
    }
    graded = grading.grade(HUMANEVAL, [planted.sample(c) for c in codes.values()])
    grades = dict(zip(codes, graded, strict=True))
    answers = {name: grade.answer for name, grade in grades.items()}
    assert answers["sum"] == answers["product"]
    assert len({answers[name] for name in ("sum", "square", "fails", "fails otherwise")}) == 4
    assert answers["absent"] == ""
    untested = [planted.sample(c)._replace(answer="") for c in codes.values()]
    asked = grading.grade(HUMANEVAL, untested)
    assert [grade.answer for grade in asked] == list(answers.values())
    assert {grade.status for grade in asked} <= {"wrong", "unparseable"}


@needs_sandbox
def test_completions_vote_without_a_reference() -> None:
    text = planted.problem(HUMANEVAL).text
    named = CODEJSONL.read_row({"prompt": "Add 1.", "entry_point": "inc", "tests": ["inc(1)"]}).text
    bodies = ("x + 1", "1 + x", "x")
    for task, question, name in ((HUMANEVAL, text, "double"), (CODEJSONL, named, "inc")):
        codes = [fenced(f"def {name}(x): return {body}") for body in bodies]
        left, right, wrong, nothing = grading.ballots(task, question, [*codes, "no program"])
        assert (left == right, left == wrong, nothing) == (True, False, "")
    assert grading.ballots(HUMANEVAL, text, [fenced(planted.RIGHT)]) == [planted.RIGHT]
    assert grading.ballots(tasks.get("gsm8k"), "?", ["Final Answer: 3.0", "3"]) == ["3", "3"]


@needs_sandbox
def test_what_was_cut_short_counts_where_its_fence_is_closed() -> None:
    whole = planted.sample(planted.RIGHT, cut=True)
    open_ended = whole._replace(completion=whole.completion.removesuffix("```"))
    grades = grading.grade(HUMANEVAL, [whole, open_ended])
    assert [grade.status for grade in grades] == ["correct", "truncated"]


@pytest.mark.parametrize(
    ("task", "changes", "fault"),
    [
        (
            HUMANEVAL,
            {"test": "def check(candidate):\n    assert candidate(1 == 2"},
            "'test' does not",
        ),
        (HUMANEVAL, {"test": "def check(candidate):\n    assert True"}, "'test' asserts nothing"),
        (HUMANEVAL, {"entry_point": "a b"}, "'entry_point' holds 'a b'"),
        (HUMANEVAL, {"prompt": 3}, "'prompt' holds 3"),
        (MBPP, {"text": "x", "test_list": []}, "'test_list' is empty"),
        (MBPP, {"text": "x", "test_list": "assert f(1)"}, "'test_list' holds a str"),
        (
            MBPP,
            {"text": "x", "test_list": ["assert f(1"]},
            "'test_list' does not compile at line 1",
        ),
        (MBPP, {"text": "x", "test_list": ["assert 1 == 1"]}, "calls no function"),
        (
            MBPP,
            {"text": "x", "test_list": ["assert f(1)"], "test_imports": ["import numpy as np"]},
            "'test_imports' imports numpy, but a sandbox has the standard library alone",
        ),
        (CODEJSONL, {"tests": []}, "'tests' is empty"),
        (CODEJSONL, {"tests": ["def"]}, "'tests' does not compile"),
        (CODEJSONL, {"tests": ["def f(x): assert x"]}, "'tests' tests nothing in 'def f"),
        (CODEJSONL, {"tests": "def f(x):\n    assert x\n"}, "'tests' asserts nothing"),
        (CODEJSONL, {"tests": ["import math"]}, "'tests' tests nothing"),
        (CODEJSONL, {"tests": ["assert x"], "setup": "("}, "'setup' does not compile"),
    ],
)
def test_a_row_that_is_none_says_which_field(
    task: Task, changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        task.read_row(planted.ROW | changes)


def test_a_reference_is_canonical_or_none() -> None:
    answer = HUMANEVAL.read_row(planted.ROW).answer
    assert HUMANEVAL.reference(answer, ()) == answer
    for broken in (
        "",
        "4",
        "{}",
        '{"entry": 1}',
        '{"entry":"f","prompt":"","setup":"","tests":[1]}',
    ):
        assert coding.reference(broken) is None


def test_a_compressed_file_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    broken = planted.ROW | {"test": "def check(c):\n    assert ("}
    lines = "\n".join(map(json.dumps, [planted.ROW, broken]))
    file.write_bytes(gzip.compress(lines.encode()))
    questions, account = tasks.load(HUMANEVAL, str(file), split="eval")
    assert ([q.id for q in questions], account.malformed) == (["Test/0"], 1)
    assert account.quarantined[0][0] == f"{file}:2"
    file.write_bytes(gzip.compress(lines.encode())[:-20])
    with pytest.raises(ValueError, match=r"rows.jsonl.gz: unreadable gzip.*fetch it again"):
        tasks.load(HUMANEVAL, str(file), split="eval")
