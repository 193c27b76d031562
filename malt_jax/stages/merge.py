"""On request: the base with each role's adapter in its weights, as Hugging Face directories in
`export/merged/`, and the adapters for llama.cpp in `export/gguf/`; of a GGUF file also the base
without one, in `export/base/`."""

from malt_jax import export
from malt_jax.runtime import hosts
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage
from malt_jax.workdir.outputs import Output


def _stage(job: Job) -> None:
    if hosts.several():
        raise ValueError("--stage=merge is work for one host: give it there, --processes=1")
    export.merge(job.directory, job.settings, job.model)


STAGE = Stage(
    "merge",
    "write every trained role as a whole model, adapter and base in one",
    _stage,
    (
        Output("export/merged/{role}", needs=("export/{role}",)),
        Output("export/gguf/{role}", needs=("export/{role}",)),
        Output("export/base", ("model.*",)),
    ),
    on_request=True,
)
