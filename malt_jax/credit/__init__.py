"""What samples are worth: values, labels and rewards, derived from grades where they are used."""

from malt_jax.credit.assign import assign, cuts_of
from malt_jax.credit.labels import above_parent, above_quantile, quantiles
from malt_jax.credit.rules import Rule, mean_of_children
from malt_jax.credit.values import label, propagate, shuffle

__all__ = [
    "Rule",
    "above_parent",
    "above_quantile",
    "assign",
    "cuts_of",
    "label",
    "mean_of_children",
    "propagate",
    "quantiles",
    "shuffle",
]
