"""On request: the adapters of the trained roles to a repository of the Hugging Face hub."""

from absl import logging

from malt_jax.export import hub
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage


def _stage(job: Job) -> None:
    files = hub.contents(job.directory, job.settings)
    for path, content in files.items():
        logging.info("%9d bytes  %s", len(content), path)
    if not job.repository:
        logging.info("nothing was uploaded; name a repository: --repository=USER/NAME")
    elif hosts.first():
        logging.info("uploaded: %s", hub.upload(files, job.repository))


STAGE = Stage(
    "upload",
    "the trained adapters to --repository=USER/NAME of the Hugging Face hub",
    _stage,
    on_request=True,
    claims=False,
)
