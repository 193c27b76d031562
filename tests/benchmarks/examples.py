"""What the trainers are given: SFT rows and DPO pairs of real questions, in the roles' prompts."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.roofline import Example
from configs.smollm2_gsm8k import get_config
from malt_jax import tasks
from malt_jax.recipe import parse
from malt_jax.rollout import roles
from malt_jax.tasks.rows import Malformed, read_rows
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question

PROMPT, COMPLETION = (100, 400), (50, 250)  # tokens; an example outside is left out
_ANNOTATION = re.compile(r"<<[^>]*>>")  # GSM8K's calculator
_ANSWER = re.compile(r"\n#### (.*)$")


def load(tokenizer: Tokenizer, data: Path, rows: int) -> dict[str, list[Example]]:
    """The first `rows` examples for SFT and half as many pairs for DPO, as token ids; completions
    end with the end of turn.

    SFT is the generator's prompt with the published solution. DPO is the refiner's prompt, which
    shows the solution of another question and a critique of it; chosen is the right solution,
    rejected the one shown. Raises ValueError if the file has too few.
    """
    by_question: dict[str, list[Example]] = {}
    for phase, count in (("sft", rows), ("dpo", rows // 2)):
        fitting = (e for e in _examples(tokenizer, data, phase) if _fits(e))
        by_question[phase] = [example for _, example in zip(range(count), fitting, strict=False)]
        if len(by_question[phase]) < count:
            raise ValueError(
                f"{data}: gives {len(by_question[phase])} examples for {phase}, not {count}"
            )
    return by_question


def useful_tokens(examples: list[Example]) -> int:
    """Tokens of all rows, each completion with its prompt: what a trainer of rows computes."""
    return sum(len(prompt) + len(row) for prompt, completions in examples for row in completions)


def unused_id(tokenizer: Tokenizer, examples: list[Example]) -> int:
    """A control token that no example holds: peers tell padding by its id."""
    shown = {id for prompt, completions in examples for row in (prompt, *completions) for id in row}
    return min(tokenizer.control_ids - shown)


def _examples(tokenizer: Tokenizer, data: Path, phase: str) -> Iterator[Example]:
    config = get_config()
    config.data.train = str(data)
    parsed = parse(config.to_dict())
    task = tasks.get(parsed.data.task)
    chain = {role.name: role for role in roles.chain(parsed)}
    limits = {role.name: role.max_new_tokens for role in chain.values()}
    role = chain["generator" if phase == "sft" else "refiner"]
    rows = [row for _, row in read_rows(str(data), task.hub, "train")]
    questions = [task.read_row(row) for row in rows if not isinstance(row, Malformed)]
    for question, other in pairwise(questions):
        wrong = _solution(other)
        critique = f"Step 1 is wrong: it does not follow from the problem.\n{wrong.splitlines()[0]}"
        seen = {} if phase == "sft" else {"generator": wrong, "verifier": critique}
        prompt = roles.prompt_ids(role, question, task.answer_hint, seen, limits, tokenizer)
        texts = [_solution(question)] if phase == "sft" else [_solution(question), wrong]
        yield prompt, [[*tokenizer.encode(text), tokenizer.end_id] for text in texts]


def _solution(question: Question) -> str:
    """The published solution as the prompts ask for it."""
    return _ANSWER.sub(r"\nFinal Answer: \1", _ANNOTATION.sub("", question.answer))


def _fits(example: Example) -> bool:
    prompt, completions = example
    return PROMPT[0] <= len(prompt) <= PROMPT[1] and all(
        COMPLETION[0] <= len(row) <= COMPLETION[1] for row in completions
    )
