"""On request: graded answers to be judged by hand, and the grader's false rates by the judgements
made so far."""

from malt_jax.evaluate import judge_audit, judged
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage, gradable


def _stage(job: Job) -> None:
    hosts.by_first(lambda: judged.run(job.directory, job.settings, job.sample))
    if job.task.judged:
        hosts.by_first(lambda: judge_audit.run(job.directory, job.settings))


STAGE = Stage(
    "audit",
    "write --sample=N graded answers to be judged by hand, and the false rates of those judged",
    _stage,
    on_request=True,
    claims=False,
    foresees=gradable,
)
