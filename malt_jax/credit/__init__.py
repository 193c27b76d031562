"""What samples are worth: values, labels and rewards, derived from grades where they are used."""

from malt_jax.credit.assign import assign
from malt_jax.credit.rules import Rule, mean_of_children
from malt_jax.credit.values import label, propagate, shuffle

__all__ = ["Rule", "assign", "label", "mean_of_children", "propagate", "shuffle"]
