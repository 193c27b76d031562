"""Launch scripts run on stand-ins of the tools that they call."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = {"ZONE": "us-west4-a", "BUCKET": "gs://bucket", "IMAGE": "host/image", "POLL": "0"}

# A slice of one worker: what is sent there by ssh is run here, in $HOME, but for the setup.
_GCLOUD = """#!/usr/bin/env bash
echo "$*" >> "$HOME/calls"
case "$*" in
  *describe*)
    state=$(head -n 1 "$HOME/states")
    [[ $state != NOT_FOUND || $* != *format* ]] && sed -i 1d "$HOME/states"
    [[ $state != NOT_FOUND && $state != OFFLINE ]] || { echo "$state" >&2; exit 1; }
    echo "$state" ;;
  *pip*) ;;
  *" scp "*) cp "$5" "$HOME/${6#*:}" ;;
  *" ssh "*)
    for part in "$@"; do
      [[ $part != --command=* ]] || (cd "$HOME" && "$LOGIN_SHELL" -c "${part#--command=}")
    done ;;
esac
"""
_PYTHON = """#!/usr/bin/env bash
printf '%s\\0' "$@" > arguments
exit $(cat ../ends_with)
"""


def bash(
    *line: str, path: Path | None = None, at: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    """A script with its flags, run in the checkout `at`, with the tools in `path` before others."""
    search = os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", *line],
        cwd=at,
        env=os.environ | SETTINGS | {"PATH": search, "HF_TOKEN": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def slice_of(directory: Path, states: list[str], status: int, shell: str = "bash") -> dict:
    """A gcloud in `directory/bin`, and on its worker, in `directory/home`, a python that notes its
    arguments and ends with `status`. Gives the environment that goes with them."""
    home = directory / "home"
    executable(directory / "bin" / "gcloud", _GCLOUD)
    executable(home / "malt_jax" / ".venv" / "bin" / "python", _PYTHON)
    (home / "states").write_text("\n".join(states) + "\n")
    (home / "ends_with").write_text(str(status))
    return {"HOME": str(home), "LOGIN_SHELL": shell}


def executable(file: Path, text: str) -> None:
    """A script of that text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def arguments(directory: Path) -> list[str]:
    """What the worker's python was given."""
    return (directory / "home" / "malt_jax" / "arguments").read_text().split("\0")[:-1]
