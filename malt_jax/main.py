"""The doorway: `python -m malt_jax.main --config=configs/quickstart.py [--stage=NAME]
[--config.KEY=VALUE ...]`."""

from absl import app, flags, logging
from ml_collections import config_flags

from malt_jax import job, settings

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe, e.g. configs/quickstart.py.", lock_config=True
)
_STAGE = flags.DEFINE_enum(
    "stage", "all", ["all", *job.STAGES], "One stage of the job, or all of them in order."
)


def main(argv: list[str]) -> None:
    """Runs the job; an impossible setting ends it with one line that names the key."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; settings are --config.KEY=VALUE")
    logging.set_verbosity(logging.INFO)
    config = _CONFIG.value.to_dict()
    try:
        job.run(
            settings.parse(config), config, job.STAGES if _STAGE.value == "all" else (_STAGE.value,)
        )
    except (ValueError, FileNotFoundError) as error:
        logging.debug("where it happened", exc_info=True)
        raise SystemExit(f"malt_jax: {error}") from error


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
