"""MALT: three LLM agents trained as a team, from questions to a report.

    malt_jax --config=RECIPE [--stage=NAME] [--config.KEY=VALUE ...]

RECIPE is a name (quickstart) or a Python file. `python -m malt_jax.main` is the same command.
"""

import argparse
import importlib
import importlib.metadata
import logging as std_logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from malt_jax.config.settings import Settings

# Imports of the package begin in `main`, where Ctrl-C and a library that is missing are no
# tracebacks; what takes seconds is imported once the command line is known to be right.


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        self.exit(2, f"malt_jax: {message}\n")


def _parser() -> _Parser:
    from malt_jax.config import files

    parser = _Parser(
        prog="malt_jax",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog=f"Recipes by name: {', '.join(files.names())}.",
    )
    add = parser.add_argument
    add("--version", action="store_true", help="print the version and end")
    add("--config", metavar="RECIPE", help="a recipe's name or file: quickstart, say")
    add(
        "--stage",
        default="all",
        metavar="NAME",
        help="all (the default), or one of collect, datasets, train, evaluate, report; on request "
        "rounds, solutions, merge, audit, plan, solve, serve, upload; or FILE.py:NAME, a stage of "
        "your own",
    )
    add(
        "--topology",
        default="",
        help="with --stage=plan: the accelerators to plan for, v5e:2x4, say",
    )
    add(
        "--sample",
        type=int,
        default=0,
        metavar="N",
        help="with --stage=audit: how many graded answers to write out to be judged by hand",
    )
    asks = parser.add_argument_group("with --stage=solve")
    asks.add_argument("--question", default="", metavar="TEXT", help="what the team is asked")
    asks.add_argument(
        "--questions",
        default="",
        metavar="FILE",
        help="questions, one a line, or JSON lines with `question`; - is standard input",
    )
    asks.add_argument(
        "--votes", type=int, default=0, metavar="N", help="passes that vote; else config.eval.votes"
    )
    asks.add_argument("--json", action="store_true", help="JSON lines on a terminal as well")
    asks.add_argument("--base", action="store_true", help="ask the team as it was before training")
    add(
        "--compare",
        action="append",
        default=[],
        metavar="WORKDIR",
        help="with --stage=report: another run's work directory to compare this one with; may be "
        "given several times",
    )
    serves = parser.add_argument_group("with --stage=serve")
    serves.add_argument("--host", help="where to listen; 127.0.0.1 by default")
    serves.add_argument("--port", type=int, metavar="N", help="8000 by default; 0 is any free one")
    serves.add_argument(
        "--token-file",
        metavar="FILE",
        help="holds what clients must give, as does MALT_TOKEN in the environment; needed where "
        "other machines can ask",
    )
    add(
        "--repository",
        default="",
        metavar="USER/NAME",
        help="with --stage=upload: where to, on the Hugging Face hub; without it nothing is "
        "uploaded and the files are listed",
    )
    add(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help="the first of several processes, where no cluster (Cloud TPU, GKE, SLURM) names it; "
        "each gets the same command and its own --process",
    )
    add("--processes", type=int, default=0, help="with --coordinator: how many there are")
    add("--process", type=int, default=-1, help="with --coordinator: this one's number, from 0")
    return parser


def _command_line(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The flags, and the resolved config. Raises ValueError for a recipe, a flag or a key that does
    not exist, with the one that was probably meant."""
    from malt_jax.config import files, overrides
    from malt_jax.config.names import choices
    from malt_jax.config.settings import RoleSettings

    given, others = overrides.split(arguments)
    parser = _parser()
    flags, unknown = parser.parse_known_args(others)
    if flags.version:
        return flags, {}
    for argument in unknown:
        if not argument.startswith("-"):
            parser.error(f"unexpected argument {argument!r}; settings are --config.KEY=VALUE")
        name = argument.lstrip("-").partition("=")[0]
        parser.error(f"no flag --{name}; {choices(name, vars(flags))}")
    if not flags.config:
        parser.error(f"--config: missing; name a recipe: {', '.join(files.names())}, or a file")
    if flags.compare and flags.stage != "report":
        parser.error("--compare goes with --stage=report")
    if flags.sample and (flags.stage != "audit" or flags.sample < 0):
        parser.error("--sample goes with --stage=audit, and is a count: --sample=200, say")
    for flag in ("host", "port", "token_file"):
        if getattr(flags, flag) is not None and flags.stage != "serve":
            parser.error(f"--{flag.replace('_', '-')} goes with --stage=serve")
    if flags.repository and flags.stage != "upload":
        parser.error("--repository goes with --stage=upload")
    for name in ("question", "questions", "votes", "json", "base"):
        if getattr(flags, name) and flags.stage != "solve":
            parser.error(f"--{name} goes with --stage=solve")
    if flags.votes < 0:
        parser.error("--votes is a count of passes: --votes=3, say")
    if bool(flags.topology) != (flags.stage == "plan"):
        parser.error("--stage=plan and --topology go together: --topology=v5e:2x4, say")
    files.path(flags.config)
    importlib.import_module("malt_jax.recipe")  # a library that it lacks is no fault of the recipe
    config = files.load(flags.config).to_dict()
    return flags, overrides.applied(config, given, asdict(RoleSettings()))


def main() -> None:
    """Runs the job of this process's command line. What keeps it from running ends it with a line
    that names the setting, flag, file or library."""
    try:
        with _interruptible():
            flags, config = _command_line(sys.argv[1:])
            if flags.version:
                print(f"malt_jax {importlib.metadata.version('malt-jax')}")
                return
            _work(flags, config)
    except ValueError as error:
        raise SystemExit(f"malt_jax: {error}") from error
    except (ImportError, OSError) as error:  # the job's own errors of files it tells itself
        if (getattr(error, "name", None) or "").startswith("malt_jax"):
            raise
        raise SystemExit(
            f"malt_jax: a library cannot be loaded here ({error}); install what this package "
            "takes anew: pip install --force-reinstall malt-jax"
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the job takes its own signals, Ctrl-C ends the process where it is, in the middle of an
    import or of a compilation, and leaves no traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:  # ignored in the background, say
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # else the job wants it otherwise
            signal.signal(signal.SIGINT, handler)


def _work(flags: argparse.Namespace, config: dict[str, Any]) -> None:
    import jax

    from malt_jax import recipe, stages
    from malt_jax.runtime import devices, hosts, process
    from malt_jax.workdir import lock, storage

    _log_news()
    _keep_compiled_programs()
    try:
        parsed = recipe.parse(config)
        whole = stages.in_order(parsed.rounds.count)
        names = whole if flags.stage == "all" else (flags.stage,)
        claims = any(stages.named(name).claims for name in names)
        stages.foresee(parsed, names)
        if flags.topology:
            stages.run(parsed, config, names, topology=flags.topology)
            return
        hosts.start(flags.coordinator, flags.processes, flags.process)
        devices.meet()  # now: the runtime of TPUs brings a handler of SIGTERM that only aborts
        workdir = storage.at(parsed.workdir)
        with process.stoppable(), lock.held(workdir) if claims else nullcontext():
            _run(flags, config, parsed, names)
    except process.Stopped as stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is kept: a second one breaks the exit
        from absl import logging

        logging.info("ended by request (%s); the same command goes on from here", stopped)
        sys.exit(process.AGAIN)
    except (ValueError, OSError, FloatingPointError) as error:
        way_on = storage.way_on(error)
        raise SystemExit(f"malt_jax: {hosts.described(error)}{way_on}") from error
    except jax.errors.JaxRuntimeError as error:  # of hosts, when one is gone
        if not hosts.several():
            raise
        raise SystemExit(f"malt_jax: {hosts.described(error)}") from error


def _run(
    flags: argparse.Namespace, config: dict[str, Any], parsed: "Settings", names: Sequence[str]
) -> None:
    """The stages, or what goes round several runs of them: a suite, or a comparison."""
    from malt_jax import experiments, stages
    from malt_jax.serve.address import Address
    from malt_jax.stages.asked import Asked
    from malt_jax.workdir import storage

    others = [storage.at(path) for path in flags.compare]
    if flags.stage == "report" and (parsed.suite or others):
        experiments.report_on(config, others)
    elif parsed.suite and flags.stage == "all":
        experiments.run(config)
    else:
        asked = Asked(flags.question, flags.questions, flags.votes, flags.json, flags.base)
        given = {"host": flags.host, "port": flags.port, "token_file": flags.token_file}
        address = Address(**{key: value for key, value in given.items() if value is not None})
        stages.run(
            parsed,
            config,
            names,
            sample=flags.sample,
            asked=asked,
            address=address,
            repository=flags.repository,
        )


def _keep_compiled_programs() -> None:
    """A second run starts warm. JAX_COMPILATION_CACHE_DIR names another place, or none if empty."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        cache = Path.home() / ".cache" / "malt_jax" / "programs"
    except RuntimeError:  # a user without a home directory
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))


def _log_news() -> None:
    """Our own progress is news; of the libraries, which share absl's logger, only warnings are."""
    from absl import flags, logging

    flags.FLAGS.mark_as_parsed()  # absl's: nothing on this command line is for them
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    ours = str(Path(__file__).parent)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda r: r.pathname.startswith(ours) or r.levelno >= std_logging.WARNING)


if __name__ == "__main__":
    main()
