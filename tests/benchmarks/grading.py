"""How long the devices wait for the graders: trees of MATH, replayed.

    python tests/benchmarks/grading.py [--questions=60] [--device-ms=20]

A stand-in for the sampler answers every request with solutions of the data set, half of them with
another number in the box, after a pause in which a device would compute. What goes by from a
request's answer until the next request is the time in which the device has nothing to do, measured
as CPU time of the driver's thread, which a busy machine does not change; the same without grading
is taken off. Once with grading where it runs in training (processes beside the
driver's thread), once in the driver's thread.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import small

from malt_jax import grading, recipe, tasks
from malt_jax.grading import Sample, judge
from malt_jax.rollout import driver, roles
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.sampler import Sampler, Sampling
from malt_jax.sampler.request import Completion, Request, Work
from malt_jax.tasks import Task
from malt_jax.types import Grade, Question

Submit = Callable[[Task, Sequence[Sample]], Future[list[Grade]]]
DATA = Path(os.environ.get("MALT_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")


class Replay:
    """Stands in for a sampler: `solutions` by question, `pause` seconds a request. `waited` is the
    CPU time in seconds of who asks, between an answer and the next request."""

    def __init__(self, solutions: dict[str, str], pause: float) -> None:
        self.solutions, self.pause = solutions, pause
        self.waited, self.samples = 0.0, 0

    def run(
        self, take: Callable[[], Request | None], *_: Any, **__: Any
    ) -> Iterator[tuple[Request, list[Completion]]]:
        while request := take():
            time.sleep(self.pause)
            question: Question = request.tag[0].tree.question
            texts = [self._text(question, child) for child in range(len(request.keys))]
            self.samples += len(texts)
            answered = time.thread_time()
            yield request, [_completion(text) for text in texts]
            self.waited += time.thread_time() - answered

    def _text(self, question: Question, child: int) -> str:
        text = self.solutions[question.id]
        if (self.samples + child) % 2:
            text = re.sub(r"(\\boxed\D*)\d", rf"\g<1>{self.samples + child}", text)
        return f"Attempt {self.samples + child}. {text}"  # none is graded twice


def _completion(text: str) -> Completion:
    tokens = small.tokenizer().encode(text)
    none = np.zeros(len(tokens), np.float32)
    return Completion(tokens, none, none, stopped=True)


def in_thread(task: Task, samples: Sequence[Sample]) -> Future[list[Grade]]:
    """Grades in the thread that asks, without limits."""
    done: Future[list[Grade]] = Future()
    done.set_result(
        [judge.by_rules(cast(Any, task.rules)(s.answer, s.choices), s) for s in samples]
    )
    return done


def not_at_all(task: Task, samples: Sequence[Sample]) -> Future[list[Grade]]:
    """Grades nothing."""
    done: Future[list[Grade]] = Future()
    done.set_result([Grade("wrong")] * len(samples))
    return done


def waiting(submit: Submit, questions: Sequence[Question], pause: float) -> float:
    """Milliseconds a sample that the device waits while trees grow."""
    config = recipe.base()
    config.model.path = config.workdir = "none"
    config.data.task = "math"
    replay = Replay({question.id: question.solution for question in questions}, pause)
    team = Team(
        sampler=cast(Sampler, replay),
        tokenizer=small.tokenizer(),
        roles=roles.chain(recipe.parse(config.to_dict())),
        adapters={},
        task=tasks.get("math"),
        sampling=Sampling(0.3, 0, 1.0),
        seed=0,
        random_stream="collect",
    )
    with mock.patch.object(grading, "submit", submit):
        for _ in driver.grow(full_tree(team), questions, lambda nodes: None, Work()):
            pass
    return 1e3 * replay.waited / replay.samples


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--device-ms", type=float, default=20.0, help="of a request of 3 samples")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    asked = parser.parse_args()
    rows = map(json.loads, (DATA / "math" / "train4500.jsonl").read_text().splitlines())
    task = tasks.get("math")
    read = [task.read_row(row) for _, row in zip(range(2 * asked.questions), rows, strict=False)]
    questions = [
        Question(f"q{i}", q.text[:200], q.answer, solution=q.solution)
        for i, q in enumerate(q for q in read if q.text.isascii() and q.solution)
    ][: asked.questions]
    task.warm_up()
    grading.grade(task, [Sample("\\boxed{1}", "2")] * 2)  # the processes have started
    waiting(not_at_all, questions[:1], 0.0)  # what makes random keys is compiled
    ways = {"none": not_at_all, "thread": in_thread, "processes": grading.submit}
    rounds = [
        {name: waiting(way, questions, asked.device_ms / 1e3) for name, way in ways.items()}
        for _ in range(asked.rounds)
    ]
    best = {name: min(times[name] for times in rounds) for name in ways}
    grading.close()
    ms = {name: round(best[name] - best["none"], 4) for name in ("thread", "processes")}
    print(json.dumps({"waiting_ms": ms, "ratio": round(ms["processes"] / ms["thread"], 3)}))


if __name__ == "__main__":
    main()
