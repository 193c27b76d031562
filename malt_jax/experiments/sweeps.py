"""Other values of a setting around the main run's, everything trained anew; and the control."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from malt_jax.experiments import ablations, variant
from malt_jax.experiments.variant import Config, Variant


def sweeps(main: Config) -> list[Variant]:
    """n, theta, temperature and k around the main run's values."""
    chain, suite = main["chain"], []
    n = max(main["roles"][role]["branching"] for role in chain)
    for branching in sorted({2, n - 1, n + 1} - {n, 0, 1}):
        values = {f"roles.{role}.branching": branching for role in chain}
        suite.append(_swept("n", branching, f"n = {branching}", values, branching < n))
    for theta in (0.2, 0.35, 0.65, 0.8):
        if theta != main["credit"]["threshold"]:
            values = {"credit.threshold": theta}
            suite.append(_swept("theta", theta, f"theta = {theta}", values, True))
    for temperature in (0.3, 0.7, 1.0):
        if temperature != main["sample"]["temperature"]:
            title, values = f"temperature {temperature}", {"sample.temperature": temperature}
            suite.append(_swept("temperature", temperature, title, values, False))
    votes = 3 * main["eval"]["votes"]
    more = ablations.evaluated(main, f"votes_{votes}", f"vote of {votes}", {"eval.votes": votes})
    return [*suite, replace(more, group="sweeps", swept=("votes", votes))]


def control(main: Config) -> list[Variant]:
    """The negative control: the same samples, their rewards shuffled."""
    values = {"credit.shuffle_rewards": True}
    return [replace(_retrained("shuffled", "shuffled rewards", values, True), group="control")]


def _retrained(name: str, title: str, values: Mapping[str, Any], reuses: bool) -> Variant:
    """Everything trained anew; other samples need their own baselines."""
    rows = variant.rows(name)
    if not reuses:
        rows |= {"sa_mv": f"{name}_sa_mv"}
    return Variant(name, "ablations", title, values, rows, reuses=reuses)


def _swept(
    setting: str, value: float, title: str, values: Mapping[str, Any], reuses: bool
) -> Variant:
    """Another value of a setting, everything trained anew."""
    retrained = _retrained(f"{setting}_{value}", title, values, reuses)
    return replace(retrained, group="sweeps", swept=(setting, value))
