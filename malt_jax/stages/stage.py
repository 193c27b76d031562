"""What a stage is: a name, what it does, and what it leaves in the work directory."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from absl import logging

from malt_jax import grading
from malt_jax.stages.job import Job
from malt_jax.workdir.outputs import Output

# The settings that shape every sample, of trees and of evaluation alike.
SAMPLES = (
    *("seed", "model.*", "data.*", "chain"),
    *("roles.*.prompt", "roles.*.branching", "roles.*.max_new_tokens"),
    *("sample.temperature", "sample.top_*", "sample.questions_per_shard"),
    *("judge.model", "judge.rubric", "judge.form", "judge.right", "judge.repeats", "reward.*"),
)


# The settings that say where and how the work is done, and shape no output. Those of eval only add
# to what is there: the samples of each single agent and of each split have their own directory.
FREE = (
    *("workdir", "suite", "suite_seeds", "mesh.*", "sample.rows", "sample.kv_gib", "wandb"),
    *("*.max_nonfinite", "eval.split", "eval.equal_compute", "eval.compute_of", "eval.critiques"),
    *("eval.single_agent", "data.sandbox", "judge.endpoint", "judge.key", "judge.concurrency"),
    *("judge.attempts", "judge.seconds", "judge.requests", "judge.tokens"),
)


def known(job: Job) -> None:
    """Raises ValueError for a task or a system that does not exist, and for prompts that show what
    no role before them wrote."""
    _ = job.chain, job.task, job.systems, job.single_agent


def gradable(job: Job) -> None:
    """Raises ValueError as `known` does, and where what grades the task's answers is not here."""
    known(job)
    grading.require(job.task)


@dataclass(frozen=True)
class Stage:
    """One step of a job, which reads what the stages before it left and goes on from what it left
    itself.

    `run` raises ValueError where a setting, or what lies in the work directory, stands against it;
    `foresees` does so before any stage of the job has run, for what can be known by then.
    Of `outputs` only what later stages build on is declared: what is written anew by every run of
    its stage contradicts no setting.
    """

    name: str
    does: str  # for --help, without a full stop
    run: Callable[[Job], None]
    outputs: tuple[Output, ...] = ()
    on_request: bool = False  # not a part of the job unless it is asked for
    collects: bool = False  # whether it asks the training questions
    claims: bool = True  # whether it works in the work directory, under the settings given
    foresees: Callable[[Job], None] = known

    def timed(self, job: Job) -> None:
        """Runs it, and logs its seconds."""
        started = time.perf_counter()
        logging.info("stage %s", self.name)
        self.run(job)
        logging.info("stage %s took %.0f s", self.name, time.perf_counter() - started)
