"""The doorway: `python -m malt_jax.main --config=FILE [--stage=NAME] [--config.KEY=VALUE ...]`."""

import logging as std_logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from malt_jax import experiments, plan
from malt_jax.config import settings
from malt_jax.evaluate import systems
from malt_jax.runtime import hosts, process
from malt_jax.stages import job
from malt_jax.workdir import lock, storage

_CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe: configs/quickstart.py, say.")
_STAGE = flags.DEFINE_enum(
    "stage",
    "all",
    ["all", *job.STAGES, *job.ON_REQUEST, "plan"],
    "One stage of the job, or all of them in order (but for merge and plan, which only run on "
    "request).",
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "With --stage=plan: the accelerators to plan for, v5e:2x4, say."
)
_COMPARE = flags.DEFINE_multi_string(
    "compare", [], "With --stage=report: work directories of other runs to compare this one with."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of the first of several processes, where no cluster (Cloud TPU, GKE, SLURM) names "
    "it. Each gets the same command and its own --process.",
)
_PROCESSES = flags.DEFINE_integer("processes", 0, "With --coordinator: how many there are.")
_PROCESS = flags.DEFINE_integer(
    "process", -1, "With --coordinator: the number of this one, from 0."
)


def main(argv: list[str]) -> None:
    """Runs the job. A setting with which it cannot run ends it with a line that names the key."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; settings are --config.KEY=VALUE")
    _quiet_libraries()
    _keep_compiled_programs()
    config = _CONFIG.value.to_dict()
    stages = job.STAGES if _STAGE.value == "all" else (_STAGE.value,)
    others = [storage.at(path) for path in _COMPARE.value]
    if others and _STAGE.value != "report":
        raise app.UsageError("--compare goes with --stage=report")
    if bool(_TOPOLOGY.value) != (_STAGE.value == "plan"):
        raise app.UsageError("--stage=plan and --topology go together: --topology=v5e:2x4, say")
    try:
        parsed = settings.parse(config)
        if _TOPOLOGY.value:
            _touch_no_accelerator()
            teams = {system.team for system in systems.chosen(parsed)}
            print(plan.run(parsed, _TOPOLOGY.value, len(teams)))
            return
        hosts.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        jax.devices()  # now: the runtime of TPUs brings a handler of SIGTERM that only aborts
        with process.stoppable(), _sole(parsed.workdir):
            if _STAGE.value == "report" and (parsed.suite or others):
                experiments.report_on(config, others)
            elif parsed.suite and _STAGE.value == "all":
                experiments.run(config)
            else:
                job.run(parsed, config, stages)
    except process.Stopped as stopped:
        logging.info("ended by request (%s); the same command goes on from here", stopped)
        sys.exit(process.AGAIN)
    except (ValueError, OSError, FloatingPointError) as error:
        way_on = storage.way_on(error)
        raise SystemExit(f"malt_jax: {hosts.described(error)}{way_on}") from error
    except jax.errors.JaxRuntimeError as error:  # of hosts, when one is gone
        if not hosts.several():
            raise
        raise SystemExit(f"malt_jax: {hosts.described(error)}") from error


def _sole(workdir: str) -> AbstractContextManager[None]:
    """The work directory held against other runs, by the first host, where it lies on a disk. A
    report only reads, and may be asked for at any time."""
    path = storage.at(workdir)
    if _STAGE.value == "report" or not hosts.first() or storage.in_bucket(path):
        return nullcontext()
    return lock.sole(path)


def _keep_compiled_programs() -> None:
    """A second run starts warm. JAX_COMPILATION_CACHE_DIR names another place, or none if empty."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path.home() / ".cache" / "malt_jax" / "programs"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _touch_no_accelerator() -> None:
    """Whatever this machine has is left alone; and programs for others cannot be kept, for they
    cannot be read back."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)


def _quiet_libraries() -> None:
    """Our own progress is news; of the libraries, which share absl's logger, only warnings are."""
    logging.set_verbosity(logging.INFO)
    ours = str(Path(__file__).parent)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda r: r.pathname.startswith(ours) or r.levelno >= std_logging.WARNING)


def _parse(argv: list[str]) -> list[str]:
    """Flags as absl reads them; what ml_collections says of an unknown key or file, in one line."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        raise SystemExit(f"malt_jax: --config: unknown key {error}") from error
    except OSError as error:
        raise SystemExit(f"malt_jax: --config: {error}") from error


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_parse)
