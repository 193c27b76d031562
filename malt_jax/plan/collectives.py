"""What the chips of a compiled program send each other, read from its text.

A chip's bytes are those it sends when a collective of n chips goes round a ring: of a result of S
bytes, an all-gather sends S (n - 1) / n, an all-reduce twice that, a reduce-scatter S (n - 1), an
all-to-all S (n - 1) / n and a permutation S.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_NAMED = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = ")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_LOOP = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_CALLED = re.compile(r"\b(?:to_apply|calls|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r" constant\((\d+)\)")


@dataclass
class _Computation:
    lines: dict[str, str] = field(default_factory=dict)  # by the instruction's name
    root: str = ""


Computations = Mapping[str, _Computation]


def traffic(text: str, unknown_trips: int = 1) -> dict[str, float]:
    """Bytes that a chip sends in a run of a program (`compiled.as_text()`), by kind of collective.

    A loop's body counts as often as it runs; where the program does not say how often that is,
    `unknown_trips` times.
    """
    entry, computations = _read(text)
    sent: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    seen: set[str] = set()

    def add(name: str, times: int) -> None:
        for line in computations[name].lines.values():
            if collective := _COLLECTIVE.search(line):
                # One that runs beside other work stands in several fusions, under one name.
                identity = _identity(line)
                if identity not in seen:
                    result, kind, started = collective.groups()
                    sent[kind] += times * _sent(kind, result, bool(started), line)
                if identity:
                    seen.add(identity)
                continue
            for called, trips in _calls(computations, line):
                add(called, times * (unknown_trips if trips is None else trips))

    add(entry, 1)
    return {kind: count for kind, count in sent.items() if count}


def _read(text: str) -> tuple[str, Computations]:
    """The entry computation's name, and all computations by name."""
    entry, computations = "", {}
    computation = _Computation()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            computation = computations[header[2]] = _Computation()
            entry = header[2] if header[1] else entry
        elif named := _NAMED.match(line):
            computation.lines[named[2]] = line
            computation.root = named[2] if named[1] else computation.root
    return entry, computations


def _calls(computations: Computations, line: str) -> Iterator[tuple[str, int | None]]:
    """The computations that an instruction runs, and how often; None where nothing says it."""
    if loop := _LOOP.search(line):
        known = _KNOWN.search(line)
        yield loop[2], int(known[1]) if known else _trips(computations, loop[1], loop[2])
    for name in _CALLED.findall(line):
        yield name, 1
    for branches in _BRANCHES.findall(line):
        for name in branches.split(","):
            yield name.strip().lstrip("%"), 1


def _trips(computations: Computations, condition: str, body: str) -> int | None:
    """How often a loop runs whose condition is `counter < constant`: XLA's own loops over the parts
    of a product begin at 0 and may take several parts a time."""
    compare = _operands(computations[condition], computations[condition].root, "compare")
    if compare is None:
        return None
    counter, limit = (computations[condition].lines.get(name, "") for name in compare)
    index, bound = re.search(r"get-tuple-element\(.*index=(\d+)", counter), _CONSTANT.search(limit)
    if index is None or bound is None:
        return None
    inside = computations[body]
    following = (_operands(inside, inside.root, "tuple") or [])[int(index[1]) :][:1]
    added = _operands(inside, following[0], "add") if following else None
    steps = [_CONSTANT.search(inside.lines.get(name, "")) for name in added or ()]
    step = next((int(match[1]) for match in steps if match), 1)
    return -(-int(bound[1]) // step)


def _operands(computation: _Computation, name: str, operation: str) -> list[str] | None:
    """Names of an instruction's operands, None if it is no `operation`."""
    match = re.search(rf" {operation}\(([^()]*)\)", computation.lines.get(name, ""))
    if match is None:
        return None
    plain = re.sub(r"/\*.*?\*/", "", match[1])  # counts of the elements of long tuples
    return [operand.split()[-1].lstrip("%") for operand in plain.split(", ") if operand.strip()]


def _identity(line: str) -> str:
    """What the parts of one split collective share; empty for one that is not split."""
    chain = re.search(r'chain_id="(\d+)"', line)
    channel = re.search(r"channel_id=(\d+)", line)
    return f"{chain[1]}:{channel[1] if channel else ''}" if chain else ""


def _sent(kind: str, result: str, started: bool, line: str) -> float:
    arrays = [
        math.prod(map(int, filter(None, sizes.split(",")))) * _bytes(dtype)
        for dtype, sizes in _ARRAY.findall(result)
    ]
    if kind == "collective-permute":
        return float(arrays[1 if started else 0])  # started: what goes in, what comes out, flags
    # What an asynchronous all-gather gives begins with its operands.
    size = sum(arrays[len(arrays) // 2 :] if started and kind == "all-gather" else arrays)
    n = _group(line)
    share = {"all-reduce": 2 * (n - 1) / n, "reduce-scatter": n - 1}.get(kind, (n - 1) / n)
    return size * share


def _bytes(dtype: str) -> float:
    bits = re.search(r"\d+", dtype)
    return 1 if bits is None else int(bits[0]) / 8  # pred takes a byte


def _group(line: str) -> int:
    """Chips of a group. Of the three ways in which XLA writes groups: {{0,1},{2,3}}, [2,2]<=[4] and
    mesh['x'=2,'y'=2] {'x'}."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\].*? \{([^}]*)\}", line):
        sizes = dict(re.findall(r"('\w+')=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'\w+'", match[2]))
    raise ValueError(f"groups of chips in a form not known: {line.strip()[:200]}")
