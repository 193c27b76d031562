"""Where the rounds of a run lie: each is a work directory of its own below the run's."""

from pathlib import Path

ROUNDS = "rounds"


def directory(workdir: Path, number: int) -> Path:
    """The work directory of a run's round; rounds count from 1."""
    return workdir / ROUNDS / str(number)


def beside(directory: Path, number: int) -> Path:
    """The work directory of another round of the same run."""
    return directory.parent / str(number)


def table(workdir: Path) -> Path:
    """The file of all rounds' figures, and of which was chosen."""
    return workdir / ROUNDS / "rounds.json"
