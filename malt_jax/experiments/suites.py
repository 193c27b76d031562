"""The suites by name."""

from collections.abc import Callable

from malt_jax.experiments.ablations import ablations
from malt_jax.experiments.baselines import paper_table1
from malt_jax.experiments.protocol import protocol
from malt_jax.experiments.repeats import seeds, transfer
from malt_jax.experiments.sweeps import control, sweeps
from malt_jax.experiments.variant import Config, Variant

SUITES: dict[str, Callable[[Config], list[Variant]]] = {
    suite.__name__: suite
    for suite in (protocol, paper_table1, ablations, sweeps, control, transfer, seeds)
}


def named(main: Config) -> list[str]:
    """The names of `config.suite`. Raises ValueError for a suite that does not exist."""
    names = [name.strip() for name in main["suite"].split(",")] if main["suite"] else []
    for name in names:
        if name not in SUITES:
            raise ValueError(f"config.suite: no suite {name!r}; there are {', '.join(SUITES)}")
    return names


def of(main: Config) -> list[Variant]:
    """The variants of `config.suite`, each once, in an order in which none needs a later one.

    Raises ValueError for a suite that does not exist.
    """
    return list(
        {variant.key: variant for name in named(main) for variant in SUITES[name](main)}.values()
    )
