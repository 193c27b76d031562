"""What a job would take on accelerators that are not here: `--stage=plan --topology=v5e:2x4`.

The programs of its stages (`sampling`, `training`) are compiled ahead of time (`programs`), their
traffic is read from the compiled text (`collectives`), what they cost at least is derived (`costs`)
and held against the chips (`topology`). Where a layout does not fit, the nearest one that does is
proposed (`search`); the work of the job (`workload`) at its rooflines gives hours (`estimate`).
"""

import jax.numpy as jnp
from absl import logging

from malt_jax import models
from malt_jax.config.settings import Settings
from malt_jax.plan import report, search, topology, workload
from malt_jax.plan.estimate import hours
from malt_jax.plan.layout import look
from malt_jax.plan.line import Target
from malt_jax.workdir import storage


def run(settings: Settings, name: str, teams: int = 2) -> str:
    """Plans the job for a topology, writes `WORKDIR/plan.json` and returns the table.

    `teams` counts the teams that are evaluated: the untrained, the trained, or both.

    Reads of the model its `config.json` alone (or a GGUF file's header), and of the data nothing.
    Raises ValueError, with the table, if the layout that the settings ask for does not fit.
    """
    dtype = jnp.dtype(settings.model.dtype)
    config = models.read_config(settings.model.path)
    work = workload.work(settings, teams, config.context)
    devices = topology.devices(name)
    target = Target(config, dtype, devices, topology.chip(devices[0], dtype))
    target.mesh(settings)  # what is wrong with it must show before anything is compiled
    asked = look(target, settings)
    proposal = search.nearest(target, settings) if asked.failures else None
    chosen = asked if proposal is None else proposal.looked
    fits = not chosen.failures
    largest = {"sample.rows": chosen.most_rows} if fits else {}
    for phase in workload.phases(settings) if fits else ():
        largest[f"{phase}.batch"] = search.largest_batch(target, chosen, phase)
    plan = report.Plan(
        name, target, asked, proposal, largest, work, hours(target, chosen, work) if fits else None
    )
    file = storage.at(settings.workdir) / "plan.json"
    storage.write_json(file, report.record(plan))
    logging.info("wrote %s", file)
    table = report.table(plan)
    if asked.failures:
        raise ValueError(f"the job does not fit {name}\n{table}")
    return table
