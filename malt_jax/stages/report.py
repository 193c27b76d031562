"""Stage 5: what came out, as `report/index.html`, which stands alone, and `report/report.md`."""

from pathlib import Path

from absl import logging

from malt_jax import report
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage
from malt_jax.workdir import storage


def _stage(job: Job) -> None:
    hosts.by_first(lambda: _write(job.directory))


def _write(workdir: Path) -> None:
    logging.info("open %s", storage.absolute(report.write(workdir)).as_uri())


STAGE = Stage("report", "write the report", _stage, claims=False)
