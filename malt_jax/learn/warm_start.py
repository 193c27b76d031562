"""A warm start, which is no part of MALT: the data set's own worked solutions as SFT rows of one
adapter, for a base that is too weak to learn from its own samples."""

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from malt_jax import grading
from malt_jax.grading import Sample
from malt_jax.learn import datasets
from malt_jax.learn.phases import sft
from malt_jax.rollout.roles import Role, prompt_ids
from malt_jax.tasks import Task
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question
from malt_jax.workdir import shards, storage


def run(
    workdir: Path,
    chain: Sequence[Role],
    learners: Sequence[str],
    task: Task,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
) -> None:
    """Writes `datasets/ROLE/sft.parquet`, ROLE being the one of `learners`, and
    `datasets/yield.json` from the questions' solutions.

    Every role of the chain is asked every question, and each is to answer with the solution: the
    base that comes out of it knows all of their prompts. What a prompt shows of earlier roles is
    what they wrote in the question's tree, if `trees/` has it, so that a role learns how far to
    trust what it reads. Else it is other questions' solutions, and a role learns to answer its
    question and not to repeat what it reads; what to make of that is for MALT to teach.

    A solution that the task's grader does not find right, or that is longer than one of the roles
    may write, is left out and counted. Raises ValueError unless there is one learner, and if no
    solution is left.
    """
    if len(learners) != 1:
        raise ValueError(
            f"config.roles: a warm start trains one adapter, on the prompts of all roles; of "
            f"{[role.name for role in chain]} leave all but one untrained, as with "
            f"--config.roles.{chain[-1].name}.train=()"
        )
    harvest = datasets.Harvest(parents=len(questions))
    rows = harvest.rows[sft.PHASE.name]
    usable = _usable(chain, task, tokenizer, questions, harvest)
    shown = _others(chain, usable) | _drafts(workdir / "trees")
    limits = {role.name: role.max_new_tokens for role in chain}
    for role in chain:
        for question in usable:
            texts = shown[question.id]
            prompt = prompt_ids(role, question, task.answer_hint, texts, limits, tokenizer)
            harvest.values.append(1.0)
            harvest.positives += 1
            rows.append(
                {
                    "prompt": tokenizer.decode(prompt, control=True),
                    "completion": question.solution,
                    "value": 1.0,
                    "question_id": question.id,
                    "prompt_token_ids": prompt,
                    "completion_token_ids": _written(tokenizer, question),
                }
            )
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in harvest.dropped.items())
        raise ValueError(f"config.data.train: no worked solution to learn from ({why})")
    directory, (learner,) = workdir / "datasets", learners
    storage.discard(directory / "credit.json")  # no samples, and so no credit of theirs
    shards.write(directory / learner / f"{sft.PHASE.name}.parquet", rows, sft.SCHEMA)
    storage.write_json(directory / "yield.json", {learner: datasets.summary(harvest)})
    logging.info("%s: %d rows of %d worked solutions", learner, len(rows), len(usable))


def _usable(
    chain: Sequence[Role],
    task: Task,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    harvest: datasets.Harvest,
) -> list[Question]:
    """The questions whose solutions are right and short enough; the others are counted."""
    room = min(role.max_new_tokens for role in chain)
    samples = [Sample(q.solution, q.answer, False, q.choices) for q in questions]
    usable = []
    for question, grade in zip(questions, grading.grade(task, samples), strict=True):
        if not question.solution:
            harvest.dropped["no solution"] += 1
        elif grade.status != "correct":
            harvest.dropped[f"graded {grade.status}"] += 1
        elif len(_written(tokenizer, question)) > room:
            harvest.dropped["longer than max_new_tokens"] += 1
        else:
            usable.append(question)
    return usable


def _written(tokenizer: Tokenizer, question: Question) -> list[int]:
    """The solution as a role would have sampled it."""
    return [*tokenizer.encode(question.solution), tokenizer.end_id]


def _others(chain: Sequence[Role], usable: Sequence[Question]) -> dict[str, dict[str, str]]:
    """By question, a solution for each role to have written: those of the questions after it."""
    shown = {}
    for i, question in enumerate(usable):
        others = (usable[(i + j) % len(usable)] for j in range(1, len(chain) + 1))
        shown[question.id] = {role.name: q.solution for role, q in zip(chain, others, strict=True)}
    return shown


def _drafts(trees: Path) -> dict[str, dict[str, str]]:
    """By question, what each role wrote on the first path of its tree."""
    shown: dict[str, dict[str, str]] = {}
    for row in shards.read(trees, ["question_id", "role", "path", "completion"]):
        if not any(row["path"]):
            shown.setdefault(row["question_id"], {})[row["role"]] = row["completion"]
    return shown
