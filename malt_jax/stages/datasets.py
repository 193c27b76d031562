"""Stage 2: the trees as rows to learn from, of each role and phase, as
`datasets/ROLE/PHASE.parquet`."""

from malt_jax.learn import datasets
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage
from malt_jax.workdir.outputs import Output


def _stage(job: Job) -> None:
    hosts.by_first(lambda: datasets.run(job.directory, job.settings))


STAGE = Stage(
    "datasets",
    "make data sets of the trees, one for every role and phase",
    _stage,
    # Other credit makes them anew, and training refuses old ones: it binds what was trained.
    (Output("datasets", needs=("trees",)),),
)
