"""A suite: the main run, its variants, and one table of them all."""

import copy
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from malt_jax import recipe, report, stages
from malt_jax.experiments import compare, variants
from malt_jax.experiments.variants import Config, Variant
from malt_jax.runtime import hosts
from malt_jax.workdir import storage


def run(config: Config) -> None:
    """Runs the main job and every variant of `config.suite` that is not done, then compares.

    `config` is the resolved config. Every variant's settings are checked before the first is run,
    and whether its prompts leave room for a question; one that fails later does not keep the
    others from running. Raises ValueError as `recipe.parse`, `stages.check` and `stages.run` do,
    at the end for what variants raised.
    """
    main = copy.deepcopy(config)
    chosen = variants.of(main)
    if any(variant.group == "ablations" for variant in chosen):
        main["eval"]["critiques"] = True
    configs = {variant.name: variants.resolve(main, variant) for variant in chosen}
    parsed = {name: recipe.parse(resolved) for name, resolved in configs.items()}
    of_main = recipe.parse(main)
    for checked in (of_main, *parsed.values()):
        stages.check(checked)
    stages.run(of_main, main, stages.in_order())
    failed = {}
    for i, variant in enumerate(chosen, 1):
        if variants.results(main, variant).exists():
            logging.info("%s (%d of %d): done before", variant.name, i, len(chosen))
            continue
        logging.info("%s (%d of %d): %s", variant.name, i, len(chosen), variant.title)
        try:
            stages.run(parsed[variant.name], configs[variant.name], variant.stages)
        except ValueError as error:  # a role without examples, say: the others can still be run
            logging.error("%s: %s", variant.name, error)
            failed[variant.name] = error
    report_on(main)
    if failed:
        lines = [f"{name}: {error}" for name, error in failed.items()]
        raise ValueError("\n".join(["some variants could not be run:", *lines]))


def report_on(config: Config, others: Sequence[Path] = ()) -> None:
    """Writes `comparison.json` of what there is of a suite, or of this run and `others`, then the
    report."""
    workdir = storage.at(config["workdir"])
    chosen: list[Variant] = variants.of(config) if config["suite"] else []

    def write() -> None:
        if chosen or others:
            print(compare.table(compare.write(config, chosen, others)))
        logging.info("open %s", storage.absolute(report.write(workdir)).as_uri())

    hosts.by_first(write)
