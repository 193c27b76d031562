"""A program that a completion holds, with what it is held to."""

from dataclasses import dataclass
from typing import Literal

Isolation = Literal["bubblewrap", "unprotected"]


@dataclass(frozen=True)
class Running:
    """How a task's programs are run and scored (`config.data.sandbox` and `config.data.score`)."""

    isolation: Isolation = "bubblewrap"
    score: Literal["all", "share"] = "all"


ALL_TESTS = Running()


@dataclass(frozen=True)
class Program:
    """`code` is the model's. `entry` names the function that it is to define. `setup` and `tests`
    are the data set's: statements, each test one that fails by raising. `probes` are calls whose
    results say how the program behaves, for votes. `closed` tells whether the completion says where
    the code ends: else one that was cut short may lack a part of it."""

    code: str
    entry: str
    setup: str
    tests: tuple[str, ...]
    probes: tuple[str, ...]
    closed: bool = True
