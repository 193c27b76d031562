"""Programs to grade, some of them hostile, and a problem for them."""

import json
from typing import Any

from malt_jax import tasks
from malt_jax.grading import Sample
from malt_jax.tasks import Task

HEADER = 'def double(x: int) -> int:\n    """Twice x.\n    >>> double(2)\n    4\n    """\n'
ROW: dict[str, Any] = {
    "task_id": "Test/0",
    "prompt": HEADER,
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n"
    "    assert candidate(2) == 4\n    assert candidate(-3) == -6\n    assert candidate(0) == 0\n",
}
RIGHT = "def double(x):\n    return x + x"


def problem(task: Task, **changes: Any) -> Any:
    """The question of ROW with some fields changed."""
    return task.read_row(ROW | changes)


def sample(code: str, *, task: Task | None = None, cut: bool = False, **changes: Any) -> Sample:
    """A fenced completion on that question."""
    question = problem(task or tasks.get("humaneval"), **changes)
    return Sample(f"```python\n{code}\n```", question.answer, cut, (), question.text)


def mbpp(*tests: str, setup: str = "") -> str:
    """A reference answer with these tests of a function `f`."""
    task = tasks.get("mbpp")
    row = {"task_id": 1, "text": "Write f.", "test_list": list(tests), "test_setup_code": setup}
    return task.read_row(row).answer


def told(answer: str) -> Any:
    """A reference answer's fields."""
    return json.loads(answer)


# None of these is a function that adds 1. Each is after the reward of one.
FORGERIES = {
    "prints": "print('passed')\ndef f(x):\n    print([True] * 9)",
    "exits at once": "import sys\nsys.exit(0)",
    "exits when called": "def f(x):\n    raise SystemExit(0)",
    "ends the process": "import os\ndef f(x):\n    os._exit(0)",
    "ends at exit": (
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    raise SystemExit"
    ),
    "equals everything": (
        "class E(int):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
        "    __hash__ = int.__hash__\ndef f(x):\n    return E(7)"
    ),
    "an object that equals everything": (
        "class E:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def f(x):\n    return E()"
    ),
    "reversed equality": (
        "class E(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def f(x):\n    return [E()]"
    ),
    "patches builtins": (
        "import builtins\nbuiltins.AssertionError = type('X', (Exception,), {})\n"
        "builtins.all = builtins.any = lambda *a: True\nbuiltins.exec = lambda *a: None\n"
        "builtins.compile = lambda *a: None\ndef f(x):\n    return 'no'"
    ),
    "patches the harness": (
        "import sys\nsys.path.insert(0, '/boxed')\nimport checks, program, wire\n"
        "checks._passes = lambda *a: True\nwire.encode = program.wire.encode = lambda *a: True\n"
        "wire.text = lambda *a: '[\"value\",true]'\nchecks.main(1, 1)\ndef f(x):\n    return 0"
    ),
    "writes a verdict to every descriptor": (
        "import os\ndef f(x):\n    for fd in range(3, 32):\n        try:\n"
        '            os.write(fd, b\'V{"passed": [true, true, true], "loaded": true, '
        '"behaviour": []}\\n\')\n        except OSError:\n            pass\n    return 0'
    ),
    "answers before it is asked": (
        "import os\nfor fd in range(3, 32):\n    try:\n"
        "        os.write(fd, b'[\"value\",true]\\n' * 9)\n    except OSError:\n        pass\n"
        "def f(x):\n    return 0"
    ),
    "looks for the tests in the frames": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
        "            if ''.join(['asse', 'rt f']) in str(v)[:10000]: return x + 1\n"
        "        frame = frame.f_back\n    return 0"
    ),
    "looks for the tests in memory": (
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
        "        if type(o) in (list, tuple) and ''.join(['asse', 'rt f']) in str(o):\n"
        "            return x + 1\n    return 0"
    ),
    "reads another process": (
        "import glob\ndef f(x):\n    for p in glob.glob('/proc/*/mem'):\n        return x + 1\n"
        "    return 0"
    ),
    "kills everything": "import os\ndef f(x):\n    os.kill(-1, 9)\n    return 0",
    "a name of the tests' own": "f = candidate = check = lambda x: 0\nAssertionError = Exception",
    "changes what it is given": (
        "def f(x):\n    return type('L', (list,), {'__eq__': lambda s, o: True})()"
    ),
    "deep answers": "def f(x):\n    y = []\n    for _ in range(9000): y = [y]\n    return y",
    "ends the loops of the tests": "def f(x):\n    raise StopIteration",
    "answers half and waits": (
        "import os, time\nos.write(3, b'[\"value\",')\nos.write(4, b'[\"value\",')\n"
        "def f(x):\n    return 0"
    ),
    "an error that is none": (
        "class E(BaseException):\n    pass\nE.__name__ = 'KeyboardInterrupt'\n"
        "def f(x):\n    raise E"
    ),
    "an error that lies": (
        "class M(type):\n    __name__ = property(lambda c: 1 / 0)\n"
        "class E(Exception, metaclass=M):\n    pass\ndef f(x):\n    raise E"
    ),
    "a class that lies": (
        "class L:\n    __class__ = int\n    def __eq__(self, o): return True\n"
        "    def __int__(self): return 7\ndef f(x):\n    return L()"
    ),
    "an endless list": (
        "class L(list):\n    def __iter__(self):\n        while True: yield 1\n"
        "def f(x):\n    return L()"
    ),
    "an endless answer for the tests": "def f(x):\n    return range(10 ** 18)",
    "huge numbers": "def f(x):\n    return 10 ** 5000",
    "huge answers": "def f(x):\n    return 'x' * (1 << 24)",
    "fills the memory": "def f(x):\n    return len([0] * (1 << 30))",
}
