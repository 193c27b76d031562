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
