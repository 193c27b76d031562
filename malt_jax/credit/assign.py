"""From graded samples to their worth: rows of whole trees get a reward, a value and a label.

Nothing of it is stored with the samples, so that another threshold, another rule or the shuffled
control needs no new sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from malt_jax.config.credit import CreditSettings
from malt_jax.credit.labels import above_parent, above_quantile, quantiles
from malt_jax.credit.rules import Rule, mean_of_children
from malt_jax.credit.values import label, shuffle
from malt_jax.credit.verdicts import of_change, of_verdict, read_scores, verdict

Row = dict[str, Any]


def assign(
    rows: Sequence[Row],
    settings: CreditSettings,
    seed: int,
    rule: Rule = mean_of_children,
    cuts: Mapping[str, float] | None = None,
) -> list[Row]:
    """The rows of a shard's trees, each with its `reward` (a leaf's score), `value` and `label`.

    A row needs `question_id`, `node` (its index in its question's tree), `parent` (that of its
    parent, -1 at the root) and `score` (in [0, 1], None where there is no verdict). All three are
    None where no leaf below a node has a score, and `reward` is None at a node with children.

    With `settings.shuffle_rewards` the scores of all leaves of these rows are permuted first, in a
    way that follows from `seed` and their number; what says how a sample was graded stays as it is.

    With `settings.label` quantile a row also needs its `role`, and `cuts` are the values that
    samples of each role must exceed, as `cuts_of` gives them for several shards together; None:
    those of these rows.

    Raises ValueError for a row whose parent is not among the rows of its question.
    """
    if not rows:
        return []
    parents, rewards, values = _worth(rows, settings, seed, rule)
    labels = _labels(rows, settings, parents, values, cuts)
    return [
        row
        | {
            "reward": None if np.isnan(reward) else float(reward),
            "value": None if np.isnan(value) else float(value),
            "label": None if np.isnan(value) else bool(positive),
        }
        for row, reward, value, positive in zip(rows, rewards, values, labels, strict=True)
    ]


def root_values(rows: Sequence[Row]) -> dict[str, float]:
    """V(root) of each question, the mean value of its first role's samples, by the grades of the
    `rows` as they are, in a control as well. Rows are as in `assign`; questions without a graded
    leaf are left out."""
    roots: dict[str, list[float]] = {}
    for row in assign(rows, CreditSettings(), seed=0):
        if row["parent"] < 0 and row["value"] is not None:
            roots.setdefault(row["question_id"], []).append(row["value"])
    return {name: float(np.mean(of_question)) for name, of_question in roots.items()}


def cuts_of(
    shards: Iterable[Sequence[Row]],
    settings: CreditSettings,
    seed: int,
    rule: Rule = mean_of_children,
) -> dict[str, float]:
    """The values that samples of each role must exceed by `settings.label` quantile, over all
    `shards`, whose rows are as in `assign`. Empty by any other rule, which reads no shard."""
    if settings.label != "quantile":
        return {}
    values: dict[str, list[float]] = {}
    for rows in filter(None, shards):
        for row, value in zip(rows, _worth(rows, settings, seed, rule)[2], strict=True):
            values.setdefault(row["role"], []).append(value)
    return quantiles(values, settings.threshold)


def _worth(
    rows: Sequence[Row], settings: CreditSettings, seed: int, rule: Rule
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parents, int32[N], rewards and values, float32[N]; see `forest` and `assign`."""
    parents = forest(rows)
    scores = np.array([row["score"] for row in rows], np.float32)  # None becomes NaN
    leaves = np.setdiff1d(np.arange(len(rows)), parents)
    if settings.shuffle_rewards:
        scores[leaves] = shuffle(jnp.asarray(scores[leaves]), jax.random.key(seed))
    rewards = np.full(len(rows), np.nan, np.float32)
    rewards[leaves] = scores[leaves]
    values = _padded(rule, scores, parents)
    if settings.by_verdict or settings.by_change:
        inner = np.setdiff1d(np.arange(len(rows)), leaves)
        if settings.shuffle_rewards:
            key = jax.random.fold_in(jax.random.key(seed), 1)
            scores[inner] = shuffle(jnp.asarray(scores[inner]), key)
        values = _by_role(rows, settings, scores, parents, values)
    return parents, rewards, values


def _by_role(
    rows: Sequence[Row],
    settings: CreditSettings,
    scores: np.ndarray,
    parents: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """The values, with those of roles that have a reward of their own in their place."""
    read = read_scores(scores, parents)
    rewarded = values.copy()
    for i, row in enumerate(rows):
        if row["role"] in settings.by_verdict:
            rewarded[i] = of_verdict(verdict(row["completion"], settings.verdict), float(read[i]))
        elif row["role"] in settings.by_change:
            rewarded[i] = of_change(float(read[i]), float(scores[i]))
    return rewarded


def columns(settings: CreditSettings) -> tuple[str, ...]:
    """The columns that rows need for `assign` and `cuts_of`."""
    placed = ("question_id", "node", "parent", "score")
    by_role = (*settings.by_verdict, *settings.by_change)
    named = by_role or settings.label == "quantile"
    return (*placed, *(("role",) if named else ()), *(("completion",) if by_role else ()))


def _labels(
    rows: Sequence[Row],
    settings: CreditSettings,
    parents: np.ndarray,
    values: np.ndarray,
    cuts: Mapping[str, float] | None,
) -> np.ndarray:
    """Which rows are positive: bool[N]."""
    if settings.label == "threshold":
        return np.asarray(label(values, settings.threshold))
    if settings.label == "parent":
        return above_parent(values, parents, [row["question_id"] for row in rows])
    roles = [row["role"] for row in rows]
    if cuts is None:
        by_role = {role: values[np.equal(roles, role)] for role in dict.fromkeys(roles)}
        cuts = quantiles(by_role, settings.threshold)
    return above_quantile(values, roles, cuts)


def forest(rows: Sequence[Row]) -> np.ndarray:
    """Each row's parent as an index into the rows: int32[N], -1 at a root. See `assign`."""
    places = {(row["question_id"], row["node"]): i for i, row in enumerate(rows)}
    parents = np.full(len(rows), -1, np.int32)
    for i, row in enumerate(rows):
        if row["parent"] < 0:
            continue
        place = places.get((row["question_id"], row["parent"]))
        if place is None or row["parent"] >= row["node"]:
            raise ValueError(
                f"question {row['question_id']!r}: node {row['node']} has no parent "
                f"{row['parent']} before it; collect its tree anew"
            )
        parents[i] = place
    return parents


def _padded(rule: Rule, scores: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The rule's values: float32[N]. Roots without a score fill the arrays up to a power of two, so
    that shards of other sizes need no program of their own."""
    spare = (1 << (len(scores) - 1).bit_length()) - len(scores)
    padded = (
        np.pad(scores, (0, spare), constant_values=np.nan),
        np.pad(parents, (0, spare), constant_values=-1),
    )
    return np.array(rule(*map(jnp.asarray, padded)))[: len(scores)]
