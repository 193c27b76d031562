"""On request: questions to the team that a run left, and its answers on standard output, as text
on a terminal and as JSON lines elsewhere."""

import dataclasses
import json
import sys
from collections.abc import Iterator

from absl import logging
from tqdm import tqdm

from malt_jax.api.asking import Solution, Team
from malt_jax.runtime import hosts
from malt_jax.stages.asked import Row
from malt_jax.stages.job import Job
from malt_jax.stages.stage import Stage


def _stage(job: Job) -> None:
    if hosts.several():
        raise ValueError("--stage=solve is work for one host: give it there, --processes=1")
    rows = job.asked.questions()
    votes = job.asked.votes or job.settings.eval.votes
    team = Team.of(job.settings, base=job.asked.base)
    if job.asked.base:
        logging.info("--base: every role answers under the base model, without its adapter")
    readable = sys.stdout.isatty() and not job.asked.json
    solutions = team.solve_all([row["question"] for row in rows], votes)
    shown = tqdm(solutions, total=len(rows), unit="question", disable=len(rows) == 1)
    refused = read = shared = written = 0
    for row, solution in zip(rows, shown, strict=True):
        lines = _text(row, solution, len(rows) == 1) if readable else [_as_json(row, solution)]
        with tqdm.external_write_mode(file=sys.stdout):
            print(*lines, sep="\n", flush=True)
        refused += bool(solution.error)
        read, shared = read + solution.tokens_read, shared + solution.tokens_shared
        written += solution.tokens_written
    logging.info(
        "%d questions asked, %d without an answer; %s tokens read, of which %s shared, %s written",
        len(rows),
        refused,
        *(f"{count:,}" for count in (read, shared, written)),
    )
    if refused == len(rows) == 1:
        raise ValueError(solution.error)


def _as_json(row: Row, solution: Solution) -> str:
    fields = dataclasses.asdict(solution)
    if not solution.error:
        del fields["error"]
    return json.dumps(row | fields, ensure_ascii=False)


def _text(row: Row, solution: Solution, whole: bool) -> Iterator[str]:
    """A question and its answer; if it is the only one, with what the roles wrote in the pass that
    answers."""
    yield row["question"]
    if solution.error:
        yield f"  no answer: {solution.error}"
        return
    last = [list(said.values())[-1] for said in solution.transcript]
    said = solution.transcript[last.index(solution.text)]
    for role, text in said.items() if whole else ():
        yield f"  {role}:"
        yield from (f"    {line}" for line in text.splitlines())
    passes = len(solution.transcript)
    votes = ", ".join(f"{answer} {count}" for answer, count in solution.votes.items())
    yield f"  answer: {solution.answer or 'none'}" + (f" (of {passes}: {votes})" if votes else "")
    if solution.verdict is not None:
        yield f"  verdict: {'accepted' if solution.verdict else 'rejected'}"


def _foresees(job: Job) -> None:
    _ = job.chain, job.task


STAGE = Stage(
    "solve",
    "ask the team --question=TEXT or --questions=FILE, and print its answers",
    _stage,
    on_request=True,
    claims=False,
    foresees=_foresees,
)
