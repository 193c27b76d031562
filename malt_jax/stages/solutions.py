"""On request: the data set's own worked solutions as rows of SFT, for a base that is too weak to
learn from its own samples."""

from functools import partial

from malt_jax.learn import warm_start
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage, gradable
from malt_jax.workdir.outputs import Output


def _stage(job: Job) -> None:
    questions, tokenizer, settings = job.training, job.model.tokenizer, job.settings
    learners = [role for role in settings.chain if settings.roles[role].train]
    inputs = job.directory, job.chain, learners, job.task, tokenizer, questions
    hosts.by_first(partial(warm_start.run, *inputs))


STAGE = Stage(
    "solutions",
    "make a data set of the task's own worked solutions, for a warm start",
    _stage,
    (
        Output(
            "datasets",
            ("seed", "model.*", "data.*", "chain", "roles.*.prompt", "roles.*.max_new_tokens"),
            ("trees",),
        ),
    ),
    on_request=True,
    foresees=gradable,
)
