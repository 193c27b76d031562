"""What samples are worth: values, labels and rewards, derived from grades where they are used."""

from malt_jax.credit.assign import assign, columns, cuts_of, root_values
from malt_jax.credit.labels import above_parent, above_quantile, quantiles
from malt_jax.credit.rules import Rule, mean_of_children
from malt_jax.credit.values import label, propagate, shuffle
from malt_jax.credit.verdicts import of_change, of_verdict, verdict

__all__ = [
    "Rule",
    "above_parent",
    "above_quantile",
    "assign",
    "columns",
    "cuts_of",
    "label",
    "mean_of_children",
    "of_change",
    "of_verdict",
    "propagate",
    "quantiles",
    "root_values",
    "shuffle",
    "verdict",
]
