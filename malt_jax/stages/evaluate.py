"""Stage 4: the untrained and the trained team, and what they are compared with, on held-out
questions, as `eval/results.json`."""

from malt_jax import export
from malt_jax.evaluate import audit, evaluation
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import SAMPLES, Stage
from malt_jax.workdir.outputs import Output

_KEYS = (*SAMPLES, "eval.*")
_TRAINED_KEYS = (*_KEYS, "roles.*.train", "roles.*.adapter")


def _stage(job: Job) -> None:
    job.claim_base()
    evaluation.run(job.directory, job.settings, job.team, job.adapters(), job.held_out)
    hosts.by_first(lambda: audit.run(job.directory, job.settings))
    hosts.by_first(lambda: export.refresh(job.directory, job.settings))


STAGE = Stage(
    "evaluate",
    "ask the held-out questions and score every system",
    _stage,
    (
        *(Output(f"eval/{name}", _KEYS) for name in ("base", "single-*", "debate*")),
        *(
            Output(f"eval/{name}", _TRAINED_KEYS, ("export/*",))
            for name in ("malt", "critique-other", "critique-none")
        ),
    ),
)
