"""A task of one's own, with partial credit: sorting numbers, scored by the share in place.

Nothing of the package is edited. A run names this file:

    python -m malt_jax.main --config=configs/smollm2_gsm8k.py --config.workdir=runs/sorting \
        --config.data.task=examples/own_task.py:TASK --config.data.train_questions=200 \
        --config.data.eval_questions=100

The questions are made here. A task whose questions stand in a file leaves `generate` out and names
the file with --config.data.train and --config.data.eval: a row needs the fields `question` and
`answer`, or the task a `read_row` that reads other ones.
"""

import random
import re
from collections.abc import Sequence

from malt_jax.tasks import Task
from malt_jax.types import Question

LENGTH = 5  # numbers of a question
_NUMBER = re.compile(r"\d+")


def generate(n: int, seed: int, split: str) -> list[Question]:
    """The first n questions of the sequence that (seed, split) fixes. Those for training begin
    with an even number, those for evaluation with an odd one: no question is in both."""
    rng = random.Random(f"{seed} {split}")
    texts: dict[str, str] = {}
    while len(texts) < n:
        numbers = rng.sample(range(10, 100), LENGTH)
        if (numbers[0] % 2 == 0) == (split == "train"):
            text = f"Sort these numbers, the smallest first: {_listed(numbers)}"
            texts[text] = _listed(sorted(numbers))
    return [Question(text, text, answer) for text, answer in texts.items()]


def grade(completions: Sequence[str], questions: Sequence[Question]) -> list[float]:
    """The share of the numbers that stand in their place: 1 for a right answer, 3/5 where two were
    swapped. It runs in a process of its own, which may take two seconds at most."""
    return [
        _share(answer(completion), question.answer)
        for completion, question in zip(completions, questions, strict=True)
    ]


def answer(completion: str) -> str:
    """What a majority vote counts: the numbers of the last line that has some."""
    lines = (line for line in reversed(completion.splitlines()) if _NUMBER.search(line))
    return _listed(_NUMBER.findall(next(lines, "")))


def _share(given: str, right: str) -> float:
    numbers, places = _NUMBER.findall(given), _NUMBER.findall(right)
    hits = sum(number == place for number, place in zip(numbers, places, strict=False))
    return hits / max(len(numbers), len(places))


def _listed(numbers: Sequence[int] | Sequence[str]) -> str:
    return ", ".join(map(str, numbers))


TASK = Task(
    name="sorting",
    grade=grade,
    answer=answer,
    generate=generate,
    answer_hint="the sorted numbers, separated by commas",
)
