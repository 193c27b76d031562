"""Graded answers to be judged by hand, and what the judgements say of the grader.

`audit/sample.jsonl` in the work directory has an answer a line, its `judged` null until a person
writes true (the completion answers the question rightly) or false. Answers are drawn in proportion
from each stratum of role, verdict and rule that read the answer, at least one of each where there
is room. What stands in the file is never drawn anew, and nothing in it is changed or left out.
`audit/rates.json` has the false rates of the verdicts as the run gave them, and of those that the
grader gives today.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import logging

from malt_jax import grading, tasks
from malt_jax.config.settings import Settings
from malt_jax.evaluate.audit import directories
from malt_jax.evaluate.scoring import Row
from malt_jax.evaluate.stats import wilson
from malt_jax.grading import Sample
from malt_jax.tasks import Task
from malt_jax.workdir import shards, storage

Stratum = tuple[str, str, str]  # role, verdict, rule

_KEYS = ("question_id", "role", "path", "status", "via")
_TEXTS = ("question", "reference", "completion", "finish_reason", "answer")
_FIELDS = {
    *("id", "role", "question", "reference", "completion", "cut", "answer", "via", "verdict"),
    "judged",
}


def run(workdir: Path, settings: Settings, count: int) -> Row:
    """Sees to it that the file has `count` answers, or as many as there are, and writes the rates
    of those that are judged; returns the rates.

    Raises:
        ValueError: if there is no file and `count` is 0, if nothing is graded in the work
            directory, and for a line that is no answer, or is judged other than true or false.
    """
    file = workdir / "audit" / "sample.jsonl"
    task = tasks.chosen(settings)
    rows = read(file) if file.exists() else []
    if not rows and not count:
        raise ValueError(f"{file}: not there; --sample=N draws N answers to be judged by hand")
    if count > len(rows):
        rows = [*rows, *_drawn(workdir, settings, count, {str(row["id"]) for row in rows})]
        with storage.written_whole(file) as sample:
            sample.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    false_rates = rates(rows, task)
    storage.write_json(workdir / "audit" / "rates.json", false_rates)
    judged = false_rates["judged"]
    logging.info("%s: %d answers, %d of them judged", storage.absolute(file), len(rows), judged)
    return false_rates


def read(file: Path) -> list[Row]:
    """The answers of a file. Raises ValueError naming the line that is none, or is judged other
    than true, false or null."""
    storage.check_regular(file)
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=storage.distinct)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}:{number}: not JSON: {error}") from None
        if missing := sorted(_FIELDS - row.keys()) if isinstance(row, dict) else ["every field"]:
            raise ValueError(f"{file}:{number}: without {', '.join(missing)}; write it back")
        if not isinstance(row["judged"], bool | None):
            raise ValueError(
                f"{file}:{number}: judged {row['judged']!r:.40}; write true, false or null"
            )
        rows.append(row)
    return rows


def rates(rows: Sequence[Row], task: Task) -> Row:
    """What the judgements say of the verdicts `as_graded`, and of today's (`now`): of the answers
    called right the share that is wrong (`false_right`), of those called wrong the share that is
    right (`false_wrong`), and the same share of those cut short before they said an answer
    (`truncated_right`), each with Wilson's interval at 95%; by rule as well."""
    judged = [row for row in rows if row["judged"] is not None]
    samples = [
        Sample(
            row["completion"],
            row["reference"],
            row["cut"],
            task.choices(row["question"]),
            row["question"],
        )
        for row in judged
    ]
    grades = grading.grade(task, samples) if samples else []
    now = [
        {**row, "verdict": g.status, "via": g.via} for row, g in zip(judged, grades, strict=True)
    ]
    return {
        "answers": len(rows),
        "judged": len(judged),
        "as_graded": _false(judged),
        "now": _false(now),
        "rules": {
            via or "none": _false([row for row in judged if row["via"] == via])
            for via in sorted({row["via"] for row in judged})
        },
    }


def _false(judged: Sequence[Row]) -> Row:
    """Of an answer without a verdict ("unknown") nothing is said."""
    right = [row for row in judged if row["verdict"] == "correct"]
    wrong = [row for row in judged if row["verdict"] in ("wrong", "unparseable")]
    cut = [row for row in judged if row["verdict"] == "truncated"]
    return {
        "false_right": _share(sum(not row["judged"] for row in right), len(right)),
        "false_wrong": _share(sum(row["judged"] for row in wrong), len(wrong)),
        "truncated_right": _share(sum(row["judged"] for row in cut), len(cut)),
    }


def _share(count: int, n: int) -> Row:
    if not n:
        return {"count": 0, "n": 0, "rate": None, "interval": None}
    return {"count": count, "n": n, "rate": count / n, "interval": list(wilson(count, n))}


def allocation(sizes: Mapping[Stratum, int], count: int) -> dict[Stratum, int]:
    """How many of `count` answers come from each stratum: one of each, the largest first, then in
    proportion to the sizes; never more than there are."""
    order = sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum))
    count = min(count, sum(sizes.values()))
    shares = dict.fromkeys(order, 0)
    for stratum in order[:count]:
        shares[stratum] = 1
    ideal = {stratum: count * size / max(1, sum(sizes.values())) for stratum, size in sizes.items()}
    for _ in range(count - sum(shares.values())):
        short = [stratum for stratum in order if shares[stratum] < sizes[stratum]]
        shares[max(short, key=lambda stratum: ideal[stratum] - shares[stratum])] += 1
    return shares


def _drawn(workdir: Path, settings: Settings, count: int, kept: set[str]) -> list[Row]:
    """New answers, so that there are `count` with those `kept`."""
    strata: dict[Stratum, list[str]] = defaultdict(list)
    for name, row in _graded(workdir, settings, _KEYS):
        strata[row["role"], row["status"], row["via"] or ""].append(name)
    if not strata:
        raise ValueError(f"{workdir}: no graded answers; run --stage=collect first")
    sizes = {stratum: len(names) for stratum, names in strata.items()}
    chosen: set[str] = set()
    for stratum, share in allocation(sizes, count).items():
        order = sorted(strata[stratum], key=lambda name: _place(settings.seed, name))
        fresh = [name for name in order if name not in kept]
        chosen.update(fresh[: max(0, share - (len(order) - len(fresh)))])
    rows = [
        _written(name, row)
        for name, row in _graded(workdir, settings, (*_KEYS, *_TEXTS))
        if name in chosen
    ]
    rows.sort(key=lambda row: _place(settings.seed, row["id"]))
    logging.info("drawn: %s", Counter(f"{row['role']} {row['verdict']}" for row in rows))
    return rows[: count - len(kept)]


def _graded(workdir: Path, settings: Settings, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """The graded samples of the trees and of the evaluation, each with its name."""
    for directory in directories(workdir, settings):
        source = directory.relative_to(workdir).as_posix()
        for path in shards.paths(directory):  # one in memory at a time
            for row in shards.read_one(path, columns, optional=("via",)):
                if row["status"]:
                    place = ".".join(map(str, row["path"]))
                    yield f"{source} {row['question_id']} {row['role']} {place}", row


def _written(name: str, row: Row) -> Row:
    return {
        "id": name,
        "role": row["role"],
        "question": row["question"],
        "reference": row["reference"],
        "completion": row["completion"],
        "cut": row["finish_reason"] == "length",
        "answer": row["answer"],
        "via": row["via"] or "",
        "verdict": row["status"],
        "judged": None,
    }


def _place(seed: int, name: str) -> str:
    """Where an answer stands in the order in which answers are drawn: a larger sample has the
    smaller one in it."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
