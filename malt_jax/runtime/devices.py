"""The devices of this machine, met once, before anything is computed."""

import os
from glob import glob

import jax

# The library of TPUs, where it is installed for plans and there is no TPU, complains of that.
_QUIET = {"TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3"}


def meet() -> None:
    """Starts the devices' runtime. Raises ValueError if the platform asked for has none here."""
    if not glob("/dev/accel*") and not glob("/dev/vfio/[0-9]*"):
        for variable, value in _QUIET.items():
            os.environ.setdefault(variable, value)
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
