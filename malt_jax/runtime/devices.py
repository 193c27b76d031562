"""The devices of this machine, met once, before anything is computed."""

import os
from glob import glob

import jax

# Else libtpu asks servers and devices that are not here what machine this is, and complains.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def quiet_libtpu() -> None:
    """Keeps libtpu, which this process has not loaded yet, from writing to the terminal. For where
    no TPU is used."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)


def meet() -> None:
    """Starts the devices' runtime. Raises ValueError if the platform asked for has none here."""
    if not glob("/dev/accel*") and not glob("/dev/vfio/[0-9]*"):  # where TPUs show
        quiet_libtpu()
    try:
        jax.devices()
    # For CUDA without a GPU it is an AssertionError without a word.
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        asked = f"JAX_PLATFORMS={platforms}: " if platforms else ""
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"{asked}no device of it can be used here{f' ({why})' if why else ''}; install "
            "malt-jax[gpu] or malt-jax[tpu], or unset JAX_PLATFORMS"
        ) from error
