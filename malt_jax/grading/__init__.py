"""Completions in, grades out, in processes of their own within limits of time and memory."""

from malt_jax.grading.judge import Sample, verdict
from malt_jax.grading.pool import close, grade, submit

__all__ = ["Sample", "close", "grade", "submit", "verdict"]
