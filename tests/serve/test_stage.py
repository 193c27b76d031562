"""The command, as `launch/compose.yaml` gives it, in a directory that holds what the image does."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest
import yaml
from recipes import good
from serving import client

from malt_jax import main, stages
from malt_jax.recipe import parse

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "launch" / "compose.yaml").read_text())
TEAM = COMPOSE["services"]["team"]
TOKEN = "0123456789abcdef"
CACHES = shutil.ignore_patterns("__pycache__")
QUESTION = [{"role": "user", "content": "7+8-2+9-4"}]


def image(directory: Path) -> Path:
    """A directory with what the Dockerfile copies."""
    directory.mkdir()
    text = (ROOT / "launch" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, target = line.split()
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, directory / target, ignore=CACHES)
            else:
                shutil.copy(source, directory / target)
    return directory


def command(token: Path, base: Path) -> list[str]:
    """The service's own command, for an untrained team of a small model on any free port."""
    given = [re.sub("/run/secrets/token", str(token), flag) for flag in TEAM["command"]]
    untrained = [f"--config.roles.{role}.train=()" for role in ("generator", "verifier", "refiner")]
    small = ("--port=0", "--config.sample.rows=4", f"--config.model.path={base}")
    return [sys.executable, "-m", "malt_jax.main", *given, *small, *untrained]


def test_the_service_answers_until_it_is_asked_to_end(tmp_path: Path, base: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    service = subprocess.Popen(
        command(token, base),
        cwd=image(tmp_path / "image"),
        env=os.environ | {"PYTHONPATH": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert service.stderr is not None
    said = ""
    try:
        while not (address := re.search(r"open http://0\.0\.0\.0:(\d+)/", said)):
            line = service.stderr.readline()
            assert line, said
            said += line
        url = f"http://127.0.0.1:{address[1]}"
        with client(url) as plain:
            while plain.get("/health").status_code != 200:
                assert service.poll() is None
            assert plain.get("/v1/models").status_code == 401
        with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN) as asking:
            create = asking.chat.completions.create
            whole = create(model="team", messages=QUESTION, seed=3).choices[0].message
            chunks = create(model="team", messages=QUESTION, seed=3, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert streamed == whole.content
        assert "**verifier**" in whole.reasoning_content
        service.send_signal(signal.SIGTERM)
        said += service.communicate(timeout=60)[1]
    finally:
        service.kill()
    assert service.returncode == 0, said
    assert TOKEN not in said
    assert "Traceback" not in said


def test_compose_trains_what_it_serves_and_shows_it_to_this_machine_alone() -> None:
    train = COMPOSE["services"]["train"]
    assert TEAM["command"][:1] == train["command"]
    assert TEAM["depends_on"] == {"train": {"condition": "service_completed_successfully"}}
    assert TEAM["volumes"] == train["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in TEAM["ports"])
    assert (ROOT / "launch" / train["build"]["context"] / train["build"]["dockerfile"]).exists()


def test_flags_of_a_stage_go_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = dict.fromkeys(("--port=0", "--host=::1", "--token-file=x"), "serve")
    for flag, stage in (flags | {"--repository=a/b": "upload"}).items():
        monkeypatch.setattr(sys, "argv", ["malt_jax", "--config=quickstart", flag])
        with pytest.raises(SystemExit):
            main.main()
        assert f"{flag.partition('=')[0]} goes with --stage={stage}" in capsys.readouterr().err


def test_a_library_that_is_missing_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'malt-jax\[serve\]'"):
        stages.foresee(parse(good()), ["serve"])
