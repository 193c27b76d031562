"""What `/metrics` says, in Prometheus' text format."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds: upper bounds of the histograms' buckets."""


@dataclass
class Histogram:
    """Counts of seconds by bucket; the last is of those above all bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """The buckets, each with those below it, then sum and count."""
        below = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {below}'
        yield f"{name}_sum{{{labels}}} {self.total}"
        yield f"{name}_count{{{labels}}} {below}"


FIRST, WHOLE = "malt_time_to_first_token_seconds", "malt_request_duration_seconds"
_HELP = {
    FIRST: "From a request to the first token of its answer.",
    WHOLE: "From a request to the end of its answer.",
}


@dataclass
class Metrics:
    """What the endpoint counts itself. Labels are names of models and numbers, never a client's
    text."""

    answers: Counter[int] = field(default_factory=Counter)
    """Answers by status."""
    seconds: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    """Histograms by metric and model."""
    under_way: int = 0
    gone: int = 0
    """Requests whose client closed the connection before the answer."""

    def observe(self, name: str, model: str, seconds: float) -> None:
        """Counts `seconds` in a histogram of a model."""
        self.seconds.setdefault((name, model), Histogram()).observe(seconds)

    def text(self, backend: Mapping[str, float], ready: bool) -> str:
        """All of it, with a backend's counters and gauges."""
        plain = {
            "malt_ready": float(ready),
            "malt_http_requests_under_way": self.under_way,
            "malt_http_clients_gone_total": self.gone,
            **backend,
        }
        lines = [line for name in sorted(plain) for line in _plain(name, plain[name])]
        lines.append("# TYPE malt_http_answers_total counter")
        for status, count in sorted(self.answers.items()):
            lines.append(f'malt_http_answers_total{{status="{status}"}} {count}')
        for metric, meaning in _HELP.items():
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} histogram"]
            for (name, model), histogram in sorted(self.seconds.items()):
                if name == metric:
                    lines += histogram.lines(name, f'model="{_escaped(model)}"')
        return "\n".join(lines) + "\n"


def _plain(name: str, value: float) -> tuple[str, str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    return f"# TYPE {name} {kind}", f"{name} {value:g}" if value < 1e6 else f"{name} {value:.0f}"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
