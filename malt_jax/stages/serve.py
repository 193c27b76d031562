"""On request: the trained team behind an endpoint, until it is asked to end."""

import importlib.util

from malt_jax.serve import address
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage, known


def _stage(job: Job) -> None:
    from malt_jax.serve import server

    token = address.read_token(job.address.token_file)
    listening = address.listen(job.address.host, job.address.port, token)  # before any work
    server.run(job.backend, listening, token)


def _foresees(job: Job) -> None:
    known(job)
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
