"""Runs a job that is killed at random moments until it is through: `python killing.py PLAN`.

PLAN is JSON: `argv` of malt_jax.main, `seed`, `kills` (how many at most, a third of them in one
stage: on a slow machine all would hit the first), `seconds` (the mean time to a kill) and `forget`
("", "optimiser" or "position": what a restore is made to lose; kills then come once an attempt has
saved a step, so that there is something to lose). The last line of output is JSON: for every kill
the stage that it hit.

Every attempt is a fork of this process, which has imported everything and computed nothing: a start
takes a second instead of ten.
"""

import json
import math
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax

from malt_jax.stages import job  # noqa: F401 (imported for the forks)
from malt_jax.workdir import checkpoints


def main(plan: dict[str, Any]) -> None:
    """Attempts until one ends by itself."""
    forgetting(plan["forget"])
    chance, hit, log = random.Random(plan["seed"]), [], Path(plan["log"])
    log.touch()
    while True:
        begun, saved = log.stat().st_size, checkpoints_beside(log)
        pid = os.fork()
        if not pid:
            run(plan["argv"], log)
        left = chance.expovariate(1 / plan["seconds"]) if len(hit) < plan["kills"] else math.inf
        while left > 0 and not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            time.sleep(0.01)
            # The clock runs in stages that have not been hit often enough.
            if plan["forget"]:
                left -= 0.01 * bool(checkpoints_beside(log) - saved)
            else:
                now = stage(log, begun)
                left -= 0.01 * (now != "" and 3 * hit.count(now) < plan["kills"])
        if left > 0:
            print(json.dumps({"code": os.waitstatus_to_exitcode(ended[1]), "hit": hit}))
            return
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        hit.append(stage(log, begun))


def run(argv: list[str], log: Path) -> None:
    """The job, in the fork."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = argv
    code: object = None
    try:
        runpy.run_module("malt_jax.main", run_name="__main__")
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr, flush=True)
    os._exit(code if isinstance(code, int) else int(code is not None))


def stage(log: Path, begun: int) -> str:
    """The stage that the log names last after its first `begun` bytes; empty if it names none."""
    with log.open() as file:
        file.seek(begun)
        lines = [line for line in file.read().splitlines() if " stage " in line]
    return lines[-1].split(" stage ")[1].split()[0] if lines else ""


def checkpoints_beside(log: Path) -> set[Path]:
    """The finished checkpoints of the run beside the log."""
    return set(log.parent.glob(f"run/checkpoints/*/*/*/{checkpoints.MANIFEST}"))


def forgetting(kind: str) -> None:
    """Plants a fault: a restore that loses something."""
    restore = checkpoints.restore

    def forgetful(store: Any, like: Any) -> Any:
        step, state = restore(store, like)
        if kind == "optimiser":
            state = like | {"adapter": state["adapter"]}
        return (max(step - 1, 0) if kind == "position" else step), state

    if kind:
        checkpoints.restore = forgetful


if __name__ == "__main__":
    assert not jax._src.xla_bridge._backends, "a fork must not inherit a running backend"
    main(json.loads(sys.argv[1]))
