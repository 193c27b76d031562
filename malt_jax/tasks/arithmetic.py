"""Sums of five digits such as "7+8-2+9-4", generated from a seed: no file, no download."""

import hashlib
import random

from malt_jax.tasks import quantities
from malt_jax.tasks.task import Task
from malt_jax.types import Question

OPERANDS = 5
LARGEST = 9
# By the hash of the text; half of all are kept for pretraining the quickstart's base model.
SPLITS = ("eval", "train", "pretrain", "pretrain")


def generate(n: int, seed: int, split: str) -> list[Question]:
    """The first `n` distinct questions of the sequence that (seed, split) fixes.

    A question belongs to "train", "eval" or "pretrain" by a hash of its text, so that no two of
    them share one, whatever the seeds. A shorter list is a prefix of a longer one.

    Raises:
        ValueError: for another split, or if `n` asks for more than half of the split's questions.
    """
    room = LARGEST**OPERANDS * 2 ** (OPERANDS - 1) * SPLITS.count(split) // len(SPLITS) // 2
    if n > room:
        raise ValueError(
            f"arithmetic has {room} questions to offer for {split}, not {n}; ask for fewer"
        )
    rng = random.Random(f"arithmetic {seed} {split}")
    texts: dict[str, None] = {}
    while len(texts) < n:
        text = str(rng.randint(1, LARGEST))
        for _ in range(OPERANDS - 1):
            text += rng.choice("+-") + str(rng.randint(1, LARGEST))
        if split_of(text) == split:
            texts[text] = None
    return [Question(f"arithmetic-{text}", text, str(value(text))) for text in texts]


def split_of(text: str) -> str:
    """The split that a question belongs to: "train", "eval" or "pretrain"."""
    digest = hashlib.sha256(text.encode()).digest()
    return SPLITS[int.from_bytes(digest[:8]) % len(SPLITS)]


def value(text: str) -> int:
    """The value of a sum of signed integers."""
    return sum(int(term) for term in text.replace("-", "+-").split("+"))


TASK = Task(
    name="arithmetic",
    answer_hint="a number",
    generate=generate,
    reference=quantities.reference,
    rules=quantities.rules,
)
