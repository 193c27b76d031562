"""A stage outside of the package: how many shards there are, as `count/shards.txt`."""

from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage
from malt_jax.workdir.outputs import Output


def run(job: Job) -> None:
    target = job.directory / "count" / "shards.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text(str(len([*job.directory.glob("trees/*.parquet")])))


STAGE = Stage("count", "count the shards", run, (Output("count", ("wandb",), ("trees",)),))
