"""Runs a job whose disk fails, again and again, until it is through: `python failing_disk.py PLAN`
under `failing_disk.c`.

PLAN is JSON: `argv` of malt_jax.main, `directory` (whose disk fails), `library` (failing_disk.c,
compiled) and `log`. Every attempt meets one error, at the first operation on a file that no attempt
before it has met one at, until there is none left. The output is a JSON object a line: for every
attempt the place of its error, its exit code and the end of what it said.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import killing


def main(plan: dict[str, Any]) -> None:
    """Attempts until one meets no error."""
    log, attempts = Path(plan["log"]), []
    report = log.with_suffix(".place")
    library = ctypes.CDLL(plan["library"])
    while True:
        log.write_text("")
        report.write_text("")
        pid = os.fork()
        if not pid:
            places = "\n".join(["", *(attempt["place"] for attempt in attempts), ""])
            told = os.open(report, os.O_WRONLY)
            library.fail_below(plan["directory"].encode(), places.encode(), told)
            killing.run(plan["argv"], log)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        place, said = report.read_text().strip(), log.read_text()
        attempts.append({"place": place, "code": code, "said": said[-3000:]})
        print(json.dumps(attempts[-1]), flush=True)
        if not place:
            return


if __name__ == "__main__":
    assert not jax._src.xla_bridge._backends, "a fork must not inherit a running backend"
    main(json.loads(sys.argv[1]))
