"""On request: what the job would take on accelerators that are not here, as `plan.json`."""

import jax

from malt_jax import plan
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage


def _stage(job: Job) -> None:
    """The accelerators of this machine are left alone; and programs for others cannot be kept, for
    they cannot be read back."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    teams = {system.team for system in job.systems}
    print(plan.run(job.settings, job.topology, len(teams)))


STAGE = Stage(
    "plan",
    "say whether the job fits the accelerators of --topology, and how long it would take",
    _stage,
    on_request=True,
    claims=False,
)
