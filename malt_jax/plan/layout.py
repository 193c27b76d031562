"""One layout of a job on its chips: its programs, and whether they fit."""

from dataclasses import dataclass

from malt_jax.config.settings import Settings
from malt_jax.plan import workload
from malt_jax.plan.line import Line, Target
from malt_jax.plan.sampling import sampled
from malt_jax.plan.topology import GIB
from malt_jax.plan.training import train_line


@dataclass(frozen=True)
class Looked:
    """A layout, the lines of its programs and why it does not fit, if so."""

    settings: Settings
    lines: tuple[Line, ...]
    rows: int  # that find pages at the same time, over all chips
    most_rows: int  # that would, of the longest prompts and completions
    prefilled: int  # tokens of a prefill pass, over all chips
    failures: tuple[str, ...]  # empty if the layout fits

    def line(self, name: str) -> Line:
        """The line of a program."""
        return next(line for line in self.lines if line.name == name)


def look(target: Target, settings: Settings) -> Looked:
    """Compiles the programs of a layout and holds them against the chips."""
    drawing = sampled(target, settings)
    trained = [train_line(target, settings, name) for name in workload.phases(settings)]
    lines = (*drawing.lines, *trained)
    failures = (*drawing.failures, *(_too_much(line) for line in lines if not line.fits))
    rows = min(drawing.rows, settings.sample.rows)
    return Looked(settings, lines, rows, drawing.rows, drawing.prefilled, failures)


def _too_much(line: Line) -> str:
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in line.memory.items() if size)
    beside = "" if line.temporaries is None else f", temporaries {line.temporaries / GIB:.2f}"
    has = f"{line.chip.memory / GIB:.2f} GiB a chip"
    return f"{line.name}: {parts}{beside} GiB" + (
        f" are {line.total / GIB:.2f} of {has}"
        if line.temporaries is not None
        else f" leave too little of {has} for its temporaries"
    )
