"""Stage 4: the untrained and the trained team, and what they are compared with, on held-out
questions, as `eval/results.json`."""

from malt_jax import export
from malt_jax.evaluate import audit, evaluation
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import FREE, SAMPLES, Stage, gradable
from malt_jax.workdir import reads
from malt_jax.workdir.outputs import Output

_KEYS = (*SAMPLES, "eval.*")
_SPLITS = ("", "development/")  # below eval/
_TRAINED_KEYS = (*_KEYS, "roles.*.train", "roles.*.adapter")


def _stage(job: Job) -> None:
    job.claim_base()
    given = job.directory, job.settings, job.team, job.adapters(), job.held_out
    if job.settings.eval.split == "development":
        evaluation.run(*given)
    else:
        read, before = _read(job), reads.stored(job.directory)
        hosts.by_first(lambda: reads.begin(job.directory, read))
        evaluation.run(*given)
        hosts.by_first(lambda: reads.end(job.directory, read, before))
    hosts.by_first(lambda: audit.run(job.directory, job.settings))
    hosts.by_first(lambda: export.refresh(job.directory, job.settings))


def _read(job: Job) -> reads.Row:
    """What is noted of an evaluation of the test split."""
    base, free = job.model.content_hash, (*FREE, "seed", "trees", "eval.resamples")
    return {
        "configuration": reads.configuration(job.directory, job.config, base, free),
        "seed": job.settings.seed,
        "test": reads.test_set(job.config),
    }


STAGE = Stage(
    "evaluate",
    "ask the held-out questions and score every system",
    _stage,
    (
        *(
            Output(f"eval/{split}{name}", _KEYS)
            for split in _SPLITS
            for name in ("base", "single-*", "debate*")
        ),
        *(
            Output(f"eval/{split}{name}", _TRAINED_KEYS, ("export/*",))
            for split in _SPLITS
            for name in ("malt", "critique-other", "critique-none")
        ),
    ),
    foresees=gradable,
)
