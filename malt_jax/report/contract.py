"""Reads comparison.json, and refuses by name what is not of its form."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from malt_jax.report import described
from malt_jax.report.comparison import (
    Against,
    AtK,
    Comparison,
    Critique,
    Failure,
    Power,
    Primary,
    Row,
    Seed,
    Split,
)
from malt_jax.report.records import EqualCompute, Flow, Interval, Vote
from malt_jax.types import parse_system

T = TypeVar("T")


def parse_comparison(data: Mapping[str, Any]) -> Comparison:
    """Reads the JSON object; of its keys only suite, main and rows must be there.

    Raises:
      ValueError: a part lacks a key or holds something else; the message says which part.
    """
    paper, seeds = data.get("paper") or {}, data.get("seeds") or {}
    read = data.get("test_reads") or {}
    comparison = Comparison(
        suite=str(data["suite"]),
        split=str(data.get("split") or "test"),
        test_reads=(_count(read.get("times", 0)), _count(read.get("configurations", 0))),
        main=str(data["main"]),
        primary=_maybe("primary", data, _primary),
        source=", ".join(str(paper[key]) for key in ("model", "protocol", "arxiv") if key in paper),
        rows=tuple(_items("rows", data["rows"], partial(_row, k=data.get("k")))),
        voting=tuple(_items("voting", data.get("voting") or (), _vote)),
        equal_compute=equal_compute(data),
        at_k={
            name: tuple(_items(f"at_k.{name}", points, _at_k))
            for name, points in (data.get("at_k") or {}).items()
        },
        flows=tuple(_flow(name, row) for name, row in (data.get("flows") or {}).items()),
        splits=tuple(_items("format", data.get("format") or (), _split)),
        critiques=tuple(
            _critique(kind, row) for kind, row in (data.get("critiques") or {}).items() if row
        ),
        power=_maybe("power", data, _power),
        seeds=tuple(_seed(name, row) for name, row in (seeds.get("differences") or {}).items()),
        seed_runs=_count(seeds.get("runs", 0)),
        commands={name: str(line) for name, line in (data.get("commands") or {}).items()},
        done=tuple(str(name) for name in data.get("done") or ()),
        failed={name: _failure(name, row) for name, row in (data.get("failed") or {}).items()},
        inputs={
            place: str(fingerprint) for place, fingerprint in (data.get("inputs") or {}).items()
        },
        command=str(data.get("command") or ""),
    )
    names = [row.name for row in comparison.rows]
    if len(set(names)) < len(names):
        raise ValueError(f"rows: {max(names, key=names.count)!r} stands there twice")
    return comparison


def _row(data: Mapping[str, Any], k: int | None) -> Row:
    likeness, against, paper = data.get("likeness"), data.get("against_main"), data.get("paper")
    name, known = str(data["name"]), "system" in data
    return Row(
        name=name,
        system=parse_system(data["system"]) if known else described.before(name, k),
        swept=_swept(data.get("swept")) if known else described.swept_before(name),
        n=_count(data["n"]),
        answers=_count(data.get("answers", data["n"])),
        correct=_count(data["correct"]),
        accuracy=_number(data["accuracy"]),
        ci95=interval(data["ci95"]),
        unparseable=_count(data["unparseable"]),
        truncated=_count(data["truncated"]),
        unknown=_count(data.get("unknown", 0)),
        prompt_tokens=_number(data["tokens"]["prompt"]),
        completion_tokens=_number(data["tokens"]["completion"]),
        novel_tokens=_number(data["novel_tokens"]) if "novel_tokens" in data else None,
        title=str(data["title"]),
        group=str(data["group"]),
        variant=str(data.get("variant") or ""),
        paper=None if paper is None else _number(paper),
        likeness=likeness and (_number(likeness["mean"]), _number(likeness["sd"])),
        against=against and _against(against),
        by_seed={seed: _number(value) for seed, value in (data.get("by_seed") or {}).items()},
    )


def _swept(data: Any) -> tuple[str, float] | None:
    return data and (str(data[0]), _number(data[1]))


def _against(data: Mapping[str, Any]) -> Against:
    p, p_holm = data.get("p", data.get("p_mcnemar")), data.get("p_holm")
    return Against(
        _number(data["difference"]),
        interval(data["ci95"]),
        _count(data["n"]),
        None if p is None else _number(p),
        None if p_holm is None else _number(p_holm),
    )


def _primary(data: Mapping[str, Any]) -> Primary:
    verdict = str(data["verdict"])
    if verdict not in ("wins", "loses", "undecided"):
        raise ValueError(f"{verdict!r} is no verdict")
    return Primary(
        str(data["against"]),
        _count(data["rivals"]),
        _count(data["seeds"]),
        _number(data["difference"]),
        interval(data["ci95"]),
        _number(data["p"]),
        _number(data["p_holm"]),
        verdict,
    )


def _failure(name: str, data: Mapping[str, Any]) -> Failure:
    with _inside(f"failed.{name}"):
        return Failure(str(data["title"]), str(data["reason"]))


def _vote(data: Mapping[str, Any], k: Any = None) -> Vote:
    return Vote(
        _count(data["k"] if k is None else k),
        _number(data["accuracy"]),
        interval(data["ci95"]),
        _number(data["tokens"]),
    )


def equal_compute(data: Mapping[str, Any]) -> tuple[EqualCompute, ...]:
    """The rows of `equal_compute` of an evaluation or a comparison. Earlier versions wrote one, of
    the single agent. Raises ValueError for what is not of its form."""
    rows = data.get("equal_compute") or []
    if isinstance(rows, Mapping):
        with _inside("equal_compute"):
            return (_equal_compute(rows),)
    return tuple(_items("equal_compute", rows, _equal_compute))


def _equal_compute(data: Mapping[str, Any]) -> EqualCompute:
    return EqualCompute(
        str(data["system"]),
        str(data.get("voter", "sa")),
        str(data.get("price", "read_and_written")),
        _number(data["tokens"]),
        _vote(data["voting"], data["k"]),
        _number(data["difference"]),
        interval(data["ci95"]),
    )


def _at_k(data: Mapping[str, Any]) -> AtK:
    return AtK(_count(data["k"]), _number(data["pass"]), _number(data["majority"]))


def _flow(name: str, data: Mapping[str, Any]) -> Flow:
    with _inside(f"flows.{name}"):
        keys = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")
        return Flow(name, *(_count(data[key]) for key in keys))


def _split(data: Mapping[str, Any]) -> Split:
    numbers = ("gain", "became_parseable", "became_right", "lost")
    return Split(str(data["from"]), str(data["to"]), *(_number(data[key]) for key in numbers))


def _critique(kind: str, data: Mapping[str, Any]) -> Critique:
    with _inside(f"critiques.{kind}"):
        return Critique(kind, _number(data["accuracy"]), interval(data["ci95"]))


def _seed(name: str, data: Mapping[str, Any]) -> Seed:
    with _inside(f"seeds.differences.{name}"):
        return Seed(name, _number(data["difference"]), interval(data["ci95"]))


def _power(data: Mapping[str, Any]) -> Power:
    return Power(
        str(data.get("against") or ""),
        _number(data["discordant"]),
        _number(data["difference"]),
        _count(data["questions"]),
        _count(data["have"]),
    )


def _items(place: str, items: Any, parse: Callable[[Any], T]) -> Iterator[T]:
    if not isinstance(items, list | tuple):
        raise ValueError(f"{place}: {items!r} is no list")
    for i, item in enumerate(items):
        with _inside(f"{place}[{i}]"):
            yield parse(item)


def _maybe(name: str, data: Mapping[str, Any], parse: Callable[[Any], T]) -> T | None:
    if not data.get(name):
        return None
    with _inside(name):
        return parse(data[name])


@contextmanager
def _inside(place: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{place} lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error


def interval(pair: Any) -> Interval:
    """[low, high] as two floats. Raises ValueError for anything else."""
    low, high = pair
    return _number(low), _number(high)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _count(value: Any) -> int:
    number = _number(value)
    if number < 0 or number != int(number):
        raise ValueError(f"{value!r} is no count")
    return int(number)
