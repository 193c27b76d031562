"""What the engines are given to do: role prompts of real questions, and whole trees of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.roofline import Parent
from configs.smollm2_gsm8k import get_config
from malt_jax import tasks
from malt_jax.recipe import parse
from malt_jax.rollout import roles
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question

Sample = Callable[[list[list[int]], int, int], tuple[list[list[list[int]]], float]]


@dataclass(frozen=True)
class Workload:
    """Roles, questions and the manner of sampling, as configs/smollm2_gsm8k.py has them."""

    tokenizer: Tokenizer
    roles: tuple[roles.Role, ...]
    task: tasks.Task
    questions: tuple[Question, ...]
    temperature: float

    @property
    def nodes(self) -> int:
        """Nodes of all trees."""
        total = width = len(self.questions)
        for role in self.roles:
            width *= role.branching
            total += width
        return total - len(self.questions)


def load(directory: Path, data: Path, count: int, limit: int) -> Workload:
    """The tokenizer of `directory` and the first `count` questions of `data`, in the order seed 0
    gives them. A role may write `limit` tokens."""
    config = get_config()
    config.data.eval = str(data)
    parsed = parse(config.to_dict())
    task = tasks.get(parsed.data.task)
    questions, _ = tasks.load(
        task, parsed.data.eval, split="eval", limit=count, max_chars=parsed.data.max_chars
    )
    chain = [replace(role, max_new_tokens=limit) for role in roles.chain(parsed)]
    return Workload(
        Tokenizer.from_directory(directory),
        tuple(chain),
        task,
        tuple(questions),
        parsed.sample.temperature,
    )


def first_prompts(workload: Workload) -> list[list[int]]:
    """The first role's prompt for each question."""
    return [_prompt(workload, 0, question, {}) for question in workload.questions]


def expand(workload: Workload, sample: Sample, seed: int) -> tuple[list[Parent], float]:
    """The trees, level by level: their parents with their children's tokens, and the seconds that
    `sample(prompts, children, seed)` says it took for all levels. Text handling is left out."""
    fronts: list[tuple[Question, dict[str, str]]] = [(q, {}) for q in workload.questions]
    parents: list[Parent] = []
    seconds = 0.0
    for depth, role in enumerate(workload.roles):
        prompts = [_prompt(workload, depth, question, seen) for question, seen in fronts]
        completions, spent = sample(prompts, role.branching, seed * len(workload.roles) + depth)
        seconds += spent
        parents += zip(prompts, completions, strict=True)
        fronts = [
            (question, {**seen, role.name: workload.tokenizer.decode(tokens)})
            for (question, seen), rows in zip(fronts, completions, strict=True)
            for tokens in rows
        ]
    return parents, seconds


def useful_tokens(parents: Sequence[Parent]) -> int:
    """Tokens of all nodes, each up to and including its stop token or its limit."""
    return sum(len(row) for _, rows in parents for row in rows)


def _prompt(workload: Workload, depth: int, question: Question, seen: dict[str, str]) -> list[int]:
    limits = {role.name: role.max_new_tokens for role in workload.roles}
    hint = workload.task.answer_hint
    return roles.prompt_ids(workload.roles[depth], question, hint, seen, limits, workload.tokenizer)
