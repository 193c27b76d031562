"""On request: the trained team behind an endpoint, until it is asked to end."""

import importlib.util

from malt_jax.api.asking import Team
from malt_jax.runtime import hosts
from malt_jax.serve import address
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage


def _stage(job: Job) -> None:
    from malt_jax.serve import server

    if hosts.several():
        raise ValueError("--stage=serve is work for one host: give it there, --processes=1")
    token = address.read_token(job.address.token_file)
    listening = address.listen(job.address.host, job.address.port, token)  # before any work
    server.run(Team.of(job.settings).engine(), listening, token)


def _foresees(job: Job) -> None:
    _ = job.chain, job.task
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--stage=serve: needs {' and '.join(missing)}: pip install 'malt-jax[serve]'"
        )


STAGE = Stage(
    "serve",
    "answer questions at an endpoint, trained team and base",
    _stage,
    on_request=True,
    claims=False,
    foresees=_foresees,
)
