"""The page `docs/quickstart/served.md`: its commands, in their order, in an empty directory."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import client

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the page installs is here already, as `malt_jax`; its questions are fewer.
FEWER = {"300": "12", "100": "6"}


def commands(port: int) -> list[str]:
    text = (ROOT / "docs" / "quickstart" / "served.md").read_text().replace("8000", str(port))
    for count, fewer in FEWER.items():
        text = text.replace(count, fewer)
    return BLOCK.findall(text)


def installed(directory: Path) -> Path:
    """A directory for PATH with the program, and the interpreter as `python`."""
    directory.mkdir()
    (directory / "python").symlink_to(sys.executable)
    program = directory / "malt_jax"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m malt_jax.main "$@"\n')
    program.chmod(0o755)
    return directory


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_the_page_goes_from_installing_to_asking() -> None:
    install, *others = commands(8000)
    assert "pip install 'malt-jax[serve]'" in install
    stages = [re.findall(r"--stage=(\w+)", block) for block in others]
    assert stages == [[], [], ["solve"], ["serve"], []]


def shell(*blocks: str, directory: Path, **options: Any) -> subprocess.Popen:
    """The blocks in one shell, with the program and this repository's package in reach."""
    env = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = "\n".join(["set -euo pipefail", *blocks])
    return subprocess.Popen(["bash", "-c", script], env=env, text=True, **options)


@pytest.mark.slow
def test_every_command_does_what_the_page_says(tmp_path: Path) -> None:
    port = free_port()
    _, questions, train, solve, serve, ask = commands(port)
    here = {"directory": installed(tmp_path / "bin"), "cwd": tmp_path, "stdout": subprocess.PIPE}
    answered = shell(questions, train, solve, **here).communicate()[0]
    assert '"votes"' in answered.splitlines()[-1]
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").exists()
    settings = "".join(line for line in train.splitlines(True) if line.startswith("run="))
    service = shell(settings, f"exec {serve.strip()} --port={port}", **here)
    try:
        with client(f"http://127.0.0.1:{port}") as plain:
            while not is_ready(plain):
                assert service.poll() is None
                time.sleep(0.5)
        asked = shell(ask, **here).communicate()[0]
        assert '"object":"chat.completion"' in asked
        service.send_signal(signal.SIGINT)
        assert service.wait(60) == 0
    finally:
        service.kill()


def is_ready(plain: httpx.Client) -> bool:
    try:
        return plain.get("/health").status_code == 200
    except httpx.TransportError:
        return False
