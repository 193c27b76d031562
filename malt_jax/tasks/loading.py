"""Questions of a file or dataset, filtered, with an account of every row."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from absl import logging

from malt_jax.tasks.overlap import OverlapIndex, key
from malt_jax.tasks.rows import Malformed, read_rows
from malt_jax.tasks.task import Task
from malt_jax.types import Question

REASONS = (
    "malformed",
    "empty",
    "too_long",
    "unparseable_answer",
    "duplicate",
    "overlap_exact",
    "overlap_ngram",
    "development",
)


@dataclass(frozen=True)
class LoadReport:
    """Where the rows of a load went: `read` is the sum of the other counts.

    A row counts under the first reason that applies, in the order of the fields. `beyond_limit`
    rows were good and not asked for. `dropped` lists (id, reason) in the order of the file,
    malformed rows last by their places; `quarantined` has these as (place, reason, beginning).
    """

    read: int
    kept: int
    malformed: int
    empty: int
    too_long: int
    unparseable_answer: int
    duplicate: int
    overlap_exact: int
    overlap_ngram: int
    development: int
    beyond_limit: int
    dropped: tuple[tuple[str, str], ...]
    quarantined: tuple[tuple[str, str, str], ...] = ()

    def summary(self) -> str:
        """One line, with the reasons that occurred."""
        counts = [(reason, getattr(self, reason)) for reason in (*REASONS, "beyond_limit")]
        why = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts if count)
        return f"{self.read} read, {self.kept} kept" + (f" ({why})" if why else "")


def load(
    task: Task,
    path: str,
    *,
    split: str,
    limit: int = 0,
    skip: int = 0,
    seed: int = 0,
    max_chars: int = 4000,
    fits: Callable[[str], bool] = lambda text: True,
    exclude: Sequence[Question] = (),
    development: Sequence[Question] = (),
) -> tuple[list[Question], LoadReport]:
    """Loads the questions of one split ("train" or "eval").

    `path` is a local file in a published form, a hub id, or "" for the task's own hub dataset.
    A task with `generate` makes its rows instead. Rows that are malformed, empty, too long (over
    `max_chars` characters, or not `fits(text)`), without a readable answer, repeated, or
    overlapping with `exclude` are dropped, and so are the questions of a `development` split and
    what overlaps with them. The rest stands in an order that `seed` fixes, so that a
    smaller `limit` gives a prefix of a larger one; 0 keeps all. The first `skip` are passed over.
    Of rows with the same question the first is kept.

    Raises:
        ValueError: for an unknown split or path, a negative limit, and a file of which no row can
            be read, with the first one's line and fault.
    """
    bad: list[tuple[str, Malformed]] = []
    spare = skip + len(exclude) + len(development)
    rows = _rows(task, path, split, limit, seed, bad, spare)
    survivors, dropped = _filter(
        task,
        rows,
        lambda text: len(text) <= max_chars and fits(text),
        OverlapIndex(exclude),
        OverlapIndex(development),
    )
    if task.generate is None:
        survivors = _shuffled(survivors, seed)
    dropped += [(place, "malformed") for place, _ in bad]
    kept = survivors[skip : skip + limit if limit else None]
    counts = Counter(reason for _, reason in dropped)
    report = LoadReport(
        read=len(rows) + len(bad),
        kept=len(kept),
        beyond_limit=len(survivors) - len(kept),
        dropped=tuple(dropped),
        quarantined=tuple((place, row.reason, row.text) for place, row in bad),
        **{reason: counts[reason] for reason in REASONS},
    )
    return kept, report


def whole(task: Task, path: str, *, generated: int = 0, seed: int = 0) -> list[Question]:
    """Every question of an evaluation split that can be read, for `exclude`: those too that `load`
    leaves out because this run cannot ask or grade them.
    `generated` is how many there are of a task that makes them.

    Raises ValueError as `load` does.
    """
    return _rows(task, path, "eval", generated, seed, [])


def _rows(
    task: Task,
    path: str,
    split: str,
    limit: int,
    seed: int,
    bad: list[tuple[str, Malformed]],
    spare: int = 0,
) -> list[Question]:
    """All that make a question; `limit` and `spare` say how many are generated."""
    if split not in ("train", "eval"):
        raise ValueError(f"split {split!r}: give 'train' or 'eval'")
    if limit < 0:
        raise ValueError(f"limit {limit}: give the number of {split} questions, or 0 for all")
    if task.generate is None:
        return list(_questions(task, path, split, bad))
    if path or not limit:
        raise ValueError(f"{task.name} is generated: give no path, and say how many questions")
    return task.generate(limit + spare, seed, split)


def _questions(
    task: Task, path: str, split: str, bad: list[tuple[str, Malformed]]
) -> Iterator[Question]:
    """The rows that make a question. The others go to `bad`, each with its place. Raises ValueError
    if all do."""
    good = 0
    for index, (place, row) in enumerate(read_rows(path, task.hub, split)):
        if isinstance(row, Malformed):
            bad.append((place, row))
            continue
        try:
            question = task.read_row(row)
        except ValueError as error:
            bad.append((place, Malformed(str(error), repr(dict(islice(row.items(), 3)))[:80])))
            continue
        good += 1
        yield replace(question, id=question.id or f"{task.name}-{split}-{index}")
    if not bad:
        return
    place, (reason, _) = bad[0]
    if not good:
        raise ValueError(f"{place}: {reason}; no row can be read as one of {task.name}")
    logging.warning(
        "%d rows are malformed and left out; the first: %s: %s", len(bad), place, reason
    )


def _filter(
    task: Task,
    rows: Iterable[Question],
    fits: Callable[[str], bool],
    excluded: OverlapIndex,
    development: OverlapIndex,
) -> tuple[list[Question], list[tuple[str, str]]]:
    survivors: list[Question] = []
    dropped: list[tuple[str, str]] = []
    texts: set[str] = set()
    ids: set[str] = set()
    for index, question in enumerate(rows):
        answer = task.reference(question.answer, question.choices)
        if answer is not None and task.reference(answer, question.choices) is None:
            answer = None  # what grading, which reads it again, would stop at
        text = key(question.text)
        if not text or not question.answer.strip():
            reason = "empty"
        elif not fits(question.text):
            reason = "too_long"
        elif answer is None:
            reason = "unparseable_answer"
        elif text in texts:
            reason = "duplicate"
        elif overlap := excluded.find(question.text):
            reason = overlap
        elif development.find(question.text):
            reason = "development"
        else:
            texts.add(text)
            name = question.id if question.id not in ids else f"{question.id}-{index}"
            ids.add(name)
            survivors.append(replace(question, id=name, answer=answer))
            continue
        dropped.append((question.id, reason))
    return survivors, dropped


def _shuffled(questions: list[Question], seed: int) -> list[Question]:
    # Ordering by a hash of the id keeps the order of the others when a row comes or goes.
    return sorted(questions, key=lambda q: hashlib.sha256(f"{seed} {q.id}".encode()).digest())
