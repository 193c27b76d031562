"""Answers to a judge's endpoint and back: threads that wait for replies, a budget, a circuit that
opens when the endpoint is down.

Nothing that goes wrong with a judge ends a run: the answer is then "unknown", which is no vote, no
reward, and in a tree a missing leaf.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from queue import SimpleQueue
from statistics import fmean
from urllib.parse import urlsplit

from absl import logging

from malt_jax.config.judging import JudgeSettings
from malt_jax.grading import endpoint, opinions
from malt_jax.grading.endpoint import Unanswered
from malt_jax.grading.judge import Sample
from malt_jax.grading.opinions import Inquiry
from malt_jax.tasks.task import Judged
from malt_jax.types import Grade
from malt_jax.workdir import storage

DOWN_AFTER = 5  # requests in a row without a reply: the endpoint is then tried once a sample


def require(settings: JudgeSettings) -> None:
    """Raises ValueError for a judge that cannot be asked, naming the setting."""
    url = urlsplit(settings.endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(
            f"config.judge.endpoint: {settings.endpoint!r} is no URL of a server; give one like "
            "http://localhost:8000/v1"
        )
    for name in ("model", "rubric"):
        if not getattr(settings, name).strip():
            raise ValueError(f"config.judge.{name}: empty; give it for task judge")
    if settings.key and not os.environ.get(settings.key):
        raise ValueError(
            f"config.judge.key: the environment has no {settings.key}; export it, or give "
            "--config.judge.key= for a server that asks for none"
        )


def submit(judged: Judged, sample: Sample) -> Future[Grade]:
    """The grade to come of one answer; "unknown" where the judge gives none. One that was cut
    short, or is blank, is not shown to the judge."""
    future: Future[Grade] = Future()
    if sample.truncated or not sample.completion.strip():
        future.set_result(Grade("truncated" if sample.truncated else "unparseable"))
        return future
    judge = _judge(judged)
    _start(judge)
    judge.waiting.put((sample, future))
    return future


def ask(judged: Judged, asked: Sequence[Inquiry]) -> list[float | None]:
    """The verdicts on inquiries, one after another: kept ones as they are, others from the
    endpoint. None where there is none."""
    return [_verdict(_judge(judged), inquiry) for inquiry in asked]


def close() -> None:
    """Forgets the judges' budgets and whether they are down; what is asked already goes on."""
    _judge.cache_clear()


@dataclass
class _Judge:
    """What is known of an endpoint, and who asks it. `silent` counts requests in a row without a
    reply; `asking` has a lock for each inquiry, so that equal ones are asked once."""

    judged: Judged
    waiting: SimpleQueue[tuple[Sample, Future[Grade]]] = field(default_factory=SimpleQueue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0
    requests: int = 0
    tokens: int = 0
    silent: int = 0
    asking: dict[str, threading.Lock] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)


@lru_cache(maxsize=8)
def _judge(judged: Judged) -> _Judge:
    return _Judge(judged)


def _start(judge: _Judge) -> None:
    with judge.lock:
        if judge.threads == judge.judged.settings.concurrency:
            return
        judge.threads += 1
    # A daemon: a program that ends does not wait for verdicts that nobody reads.
    threading.Thread(target=_work, args=(judge,), name="judging", daemon=True).start()


def _work(judge: _Judge) -> None:
    while True:
        sample, future = judge.waiting.get()
        try:
            future.set_result(_grade(judge, sample))
        except BaseException as error:
            future.set_exception(error)


def _grade(judge: _Judge, sample: Sample) -> Grade:
    """The mean verdict of all that is asked about an answer."""
    settings = judge.judged.settings
    scores = [_verdict(judge, asked) for asked in opinions.inquiries(settings, sample)]
    given = [score for score in scores if score is not None]
    if len(given) < len(scores):  # of two orders one alone would be biased
        return Grade("unknown", via="judge")
    score = fmean(given)
    return Grade("correct" if score >= settings.right else "wrong", via="judge", score=score)


def _verdict(judge: _Judge, asked: Inquiry) -> float | None:
    with judge.lock:
        lock = judge.asking.setdefault(asked.key, threading.Lock())
    with lock:
        return _given(judge, asked)


def _given(judge: _Judge, asked: Inquiry) -> float | None:
    directory = storage.at(judge.judged.workdir) / "judge"
    if (score := opinions.stored(directory, asked)) is not None:
        return score
    settings = judge.judged.settings
    tries = settings.attempts if judge.silent < DOWN_AFTER else 1
    if not _within_budget(judge):
        return None
    key = os.environ.get(settings.key, "") if settings.key else ""
    try:
        reply = endpoint.ask(settings, key, asked.messages, tries=tries, **asked.options)
    except Unanswered as error:
        judge.silent += 1
        _say(judge, f"no reply ({error})")
        return None
    judge.silent = 0
    with judge.lock:
        judge.tokens += reply.tokens
    score = asked.score(reply.text)
    if score is None:
        _say(judge, "a reply that holds no verdict")
        return None
    opinions.store(directory, asked, reply.text, score, reply.tokens)
    return score


def _within_budget(judge: _Judge) -> bool:
    settings = judge.judged.settings
    with judge.lock:
        limits = {"requests": settings.requests, "tokens": settings.tokens}
        used = {"requests": judge.requests, "tokens": judge.tokens}
        over = [name for name, most in limits.items() if most and used[name] >= most]
        judge.requests += not over
    for name in over:
        _say(judge, f"config.judge.{name}={limits[name]} is used up")
    return not over


def _say(judge: _Judge, why: str) -> None:
    """Says once what keeps answers from a verdict."""
    if why not in judge.said and len(judge.said) < 20:
        judge.said.add(why)
        logging.warning("judge %s: %s; such answers are unknown", judge.judged.settings.model, why)
