"""A warm start, which is no part of MALT: the data set's own worked solutions as SFT rows of a
single role, for a base that is too weak to learn from its own samples."""

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from malt_jax import datasets, rundir, shards
from malt_jax.roles import Role, prompt_ids
from malt_jax.tasks import Task, isolation
from malt_jax.tasks.isolation import Sample
from malt_jax.tokenizer import Tokenizer
from malt_jax.types import Question


def run(
    workdir: Path,
    chain: Sequence[Role],
    task: Task,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
) -> None:
    """Writes `datasets/ROLE/sft.parquet` and `datasets/yield.json` from the questions' solutions.

    A solution that the task's grader does not find right, or that is longer than the role may
    write, is left out and counted. Raises ValueError for a chain of several roles, and if no
    solution is left.
    """
    if len(chain) != 1:
        raise ValueError(
            f"config.chain: a worked solution teaches one role; give "
            f"--config.chain=\"('{chain[0].name}',)\""
        )
    role, harvest = chain[0], datasets.Harvest(parents=len(questions))
    samples = [Sample(q.solution, q.answer, False, q.choices) for q in questions]
    for question, grade in zip(questions, isolation.grade(task, samples), strict=True):
        completion = [*tokenizer.encode(question.solution), tokenizer.end_id]
        if not question.solution:
            harvest.dropped["no solution"] += 1
        elif grade.status != "correct":
            harvest.dropped[f"graded {grade.status}"] += 1
        elif len(completion) > role.max_new_tokens:
            harvest.dropped["longer than max_new_tokens"] += 1
        else:
            prompt = prompt_ids(role, question, task.answer_hint, {}, {}, tokenizer)
            harvest.values.append(1.0)
            harvest.positives += 1
            harvest.sft.append(
                {
                    "prompt": tokenizer.decode(prompt, control=True),
                    "completion": question.solution,
                    "value": 1.0,
                    "question_id": question.id,
                    "prompt_token_ids": prompt,
                    "completion_token_ids": completion,
                }
            )
    if not harvest.sft:
        why = ", ".join(f"{count} {reason}" for reason, count in harvest.dropped.items())
        raise ValueError(f"config.data.train: no worked solution to learn from ({why})")
    directory = workdir / "datasets"
    shards.write(directory / role.name / "sft.parquet", harvest.sft, datasets.SFT_SCHEMA)
    rundir.write_json(directory / "yield.json", {role.name: datasets.summary(harvest)})
    logging.info("%s: %d worked solutions", role.name, len(harvest.sft))
