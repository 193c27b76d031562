"""A suite: the main run, its variants, and one table of them all."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from malt_jax import recipe, report, stages
from malt_jax.config.settings import Settings
from malt_jax.experiments import compare, protocol, suites, text, variant
from malt_jax.experiments.variant import Config, Variant
from malt_jax.runtime import hosts
from malt_jax.workdir import storage
from malt_jax.workdir.storage import read_json


def run(config: Config) -> None:
    """Runs the main job and every variant of `config.suite` that is not done, then compares.

    `config` is the resolved config. Every variant's settings are checked before the first is run,
    and whether its prompts leave room for a question. One that fails, or whose training is not
    finite, does not keep the others from running: `failures.json` has what it raised, and the next
    run of the suite tries it again. Raises ValueError as `recipe.parse`, `stages.check` and
    `stages.run` do, at the end for what variants raised.
    """
    main = copy.deepcopy(config)
    chosen = suites.of(main)
    if any(row.group == "ablations" for row in chosen):
        main["eval"]["critiques"] = True
    if "protocol" in suites.named(main):
        main = protocol.main_run(main)
    configs = {row.key: variant.resolve(main, row) for row in chosen}
    parsed = {key: recipe.parse(resolved) for key, resolved in configs.items()}
    of_main = recipe.parse(main)
    for checked in (of_main, *parsed.values()):
        stages.check(checked)
    stages.run(of_main, main, stages.in_order(of_main.rounds.count))
    failed: dict[str, str] = {}
    for i, row in enumerate(chosen, 1):
        place = f"{row.key} ({i} of {len(chosen)})"
        if variant.results(main, row).exists():
            logging.info("%s: done before", place)
            continue
        logging.info("%s: %s", place, row.title)
        if error := _try(row, parsed[row.key], configs[row.key], failed):
            logging.error("%s: %s", row.key, error)
            failed[row.key] = error
        _note(main, failed)
    _note(main, failed)
    report_on(main)
    if failed:
        lines = [f"{key}: {error}" for key, error in failed.items()]
        raise ValueError("\n".join(["some variants could not be run:", *lines]))


def report_on(config: Config, others: Sequence[Path] = ()) -> None:
    """Writes `comparison.json` of what there is of a suite, or of this run and `others`, then the
    report."""
    workdir = storage.at(config["workdir"])
    chosen: list[Variant] = suites.of(config) if config["suite"] else []

    def write() -> None:
        if chosen or others:
            print(text.table(compare.write(config, chosen, others)))
        logging.info("open %s", storage.absolute(report.write(workdir)).as_uri())

    hosts.by_first(write)


def _try(row: Variant, parsed: Settings, config: Config, failed: Mapping[str, str]) -> str:
    """Runs a variant; what it raised, or nothing. What stands beside a run that failed is not
    tried."""
    if row.beside and row.beside.key in failed:
        return f"{row.beside.key} failed, beside which it stands"
    try:
        stages.run(parsed, config, _stages(row, parsed))
    except (ValueError, ArithmeticError) as error:  # a role without examples, a loss of NaN
        return str(error) or repr(error)
    except RuntimeError as error:  # of the devices: no memory, say
        if hosts.several():
            raise
        return str(error) or repr(error)
    return ""


def _stages(row: Variant, parsed: Settings) -> tuple[str, ...]:
    """The stages of a variant, which of several rounds are done in each."""
    if parsed.rounds.count == 1:
        return row.stages
    return "rounds", *(name for name in row.stages if name not in stages.OF_A_ROUND)


def _note(main: Config, failed: Mapping[str, str]) -> None:
    """Brings `failures.json` up to date."""
    path = storage.at(main["workdir"]) / "failures.json"

    def write() -> None:
        if failed or (path.exists() and read_json(path)):
            storage.write_json(path, dict(failed))

    hosts.by_first(write)
